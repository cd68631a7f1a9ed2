"""A layout: in which order a value's dimensions are stored.

    x: f32[1,3,8,9]  stored as  Layout((0, 2, 3, 1))       f32[1,8,9,3]
    y: f32[1,216]    stored as  Layout((0, 1), (Shuffle(1, (3, 8, 9), (1, 2, 0)),))

The second is what flattening the first leads to: the 216 features are all there, but in the order
of a channels-last image. A constant filter can be brought into that order for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Order = tuple[int, ...]
Shape = tuple[int, ...]

# Bytes count first; of two ways to move the same bytes the one with fewer operators is taken.
BYTE = 1 << 10


class Shuffle(NamedTuple):
    """The indices of one dimension in another order: seen as `sizes`, and those permuted."""

    axis: int
    sizes: Shape
    order: Order


class Layout(NamedTuple):
    """The dimensions in the order in which they are stored, some with their indices shuffled."""

    order: Order
    shuffles: tuple[Shuffle, ...] = ()

    def shuffle_of(self, axis: int) -> Shuffle | None:
        """The shuffle of one dimension, if it has one."""
        return next((shuffle for shuffle in self.shuffles if shuffle.axis == axis), None)


class Step(NamedTuple):
    """One operator of a conversion: a reshape to `values`, or a transpose by them."""

    kind: Literal["reshape", "transpose"]
    values: tuple[int, ...]


def natural(rank: int) -> Layout:
    """The layout in which nothing is moved."""
    return Layout(tuple(range(rank)))


def shuffled(axis: int, sizes: Sequence[int], order: Sequence[int]) -> tuple[Shuffle, ...]:
    """A shuffle in its simplest form; none where it moves nothing.

    >>> shuffled(1, (512, 1, 1), (1, 2, 0))
    ()
    """
    kept = [place for place, size in enumerate(sizes) if size != 1]
    simple = tuple(kept.index(place) for place in order if place in kept)
    if simple == tuple(range(len(simple))):
        return ()
    return (Shuffle(axis, tuple(sizes[place] for place in kept), simple),)


def below(layout: Layout, view: Order) -> Layout:
    """The layout of a value whose transpose by `view` has the given one: the same bytes.

    >>> below(Layout((0, 1, 2, 3)), (0, 2, 3, 1)).order
    (0, 2, 3, 1)
    """
    shuffles = (shuffle._replace(axis=view[shuffle.axis]) for shuffle in layout.shuffles)
    return Layout(tuple(view[axis] for axis in layout.order), tuple(sorted(shuffles)))


def beyond(layout: Layout, view: Order) -> Layout:
    """The layout of a value's transpose by `view`, where the value itself has the given one.

    >>> beyond(Layout((0, 2, 3, 1)), (0, 2, 3, 1)).order
    (0, 1, 2, 3)
    """
    return below(layout, tuple(view.index(place) for place in range(len(view))))


def stored_shape(shape: Sequence[int], layout: Layout) -> Shape:
    """The shape of the tensor in memory."""
    return tuple(shape[axis] for axis in layout.order)


def steps(shape: Shape, source: Layout, target: Layout) -> tuple[Step, ...]:
    """The operators that bring a value from one layout into another.

    >>> steps((1, 3, 8, 9), Layout((0, 1, 2, 3)), Layout((0, 2, 3, 1)))
    (Step(kind='transpose', values=(0, 2, 3, 1)),)
    >>> steps((1, 1, 8, 9), Layout((0, 1, 2, 3)), Layout((0, 2, 3, 1)))
    (Step(kind='reshape', values=(1, 8, 9, 1)),)
    """
    if source == target:
        return ()
    factors = _factors(shape, source, target)
    if factors is None:
        middle = natural(len(shape))
        return (*steps(shape, source, middle), *steps(shape, middle, target))
    before, after = (_memory(layout, factors) for layout in (source, target))
    goal = Step("reshape", stored_shape(shape, target))
    if before == after:
        return () if stored_shape(shape, source) == goal.values else (goal,)
    if not source.shuffles and not target.shuffles:
        return (Step("transpose", tuple(source.order.index(axis) for axis in target.order)),)
    split = Step("reshape", tuple(factors[axis][place] for axis, place in before))
    return (split, Step("transpose", tuple(before.index(factor) for factor in after)), goal)


def cost(size: int, moves: Sequence[Step]) -> int:
    """What a conversion of `size` bytes costs."""
    transposes = sum(step.kind == "transpose" for step in moves)
    return BYTE * size * transposes + len(moves)


def _factors(shape: Shape, *layouts: Layout) -> dict[int, Shape] | None:
    """Each dimension as a product in which every shuffle can be written, if there is one."""
    factors: dict[int, Shape] = {}
    for layout in layouts:
        for shuffle in layout.shuffles:
            if factors.setdefault(shuffle.axis, shuffle.sizes) != shuffle.sizes:
                return None
    return {axis: factors.get(axis, (size,)) for axis, size in enumerate(shape)}


def _memory(layout: Layout, factors: dict[int, Shape]) -> list[tuple[int, int]]:
    """The factors of all dimensions, outermost first; those of size one are nowhere."""
    found: list[tuple[int, int]] = []
    for axis in layout.order:
        shuffle = layout.shuffle_of(axis)
        places = range(len(factors[axis])) if shuffle is None else shuffle.order
        found.extend((axis, place) for place in places if factors[axis][place] != 1)
    return found
