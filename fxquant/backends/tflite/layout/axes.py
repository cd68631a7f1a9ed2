"""How the dimensions of an operator's operands and results hang together.

Each operator has logical axes, numbered in their natural order, and each dimension of an operand or
result belongs to one of them. An order of the axes then gives the layout of every value at once:

    concatenation, NCHW      operands (0,1,2,3)      result (0,1,2,3)
    mean over H and W        operand  (0,1,2,3)      result (0,1)
    add of f32[4,1,1]        operand  (1,2,3)        result (0,1,2,3)
    reshape 1,6,5,5 -> 1,2,3,25      operand (0,2,3,3)   result (1,2,2,3)

In the last, 6 = 2*3 and 5*5 = 25 are axes each: their dimensions keep together and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import Node

from .layouts import Order, Shape
from .typed import shape_of

Tags = tuple[int, ...]


@dataclass(frozen=True)
class Axes:
    """The axis of each dimension.

    Attributes:
        count: the number of axes.
        operands: the axes of each operand's dimensions, by parameter.
        result: those of the result, of each one where there are several.
        fixed: operands whose dimensions never change places, such as a filter.
        shuffles: whether indices along an axis may stand in any order.
        broadcasts: operands of lower rank are aligned at the last dimension.
        allows: whether the operator can be written with its axes in this order.
    """

    count: int
    operands: Mapping[str, Tags]
    result: Tags
    fixed: frozenset[str] = frozenset()
    shuffles: bool = False
    broadcasts: bool = False
    allows: Callable[[Order], bool] | None = None


@dataclass(frozen=True)
class Site:
    """One use of an operator: its arguments by parameter, and the result's shape."""

    arguments: Mapping[str, Any]
    result: Shape

    def nodes(self, name: str) -> list[Node]:
        """The values that an argument holds."""
        argument = self.arguments[name]
        several = argument if isinstance(argument, list | tuple) else (argument,)
        return [item for item in several if isinstance(item, Node)]

    def operands(self) -> Iterator[str]:
        """The parameters that hold values."""
        return (name for name in self.arguments if self.nodes(name))

    def shape(self, name: str) -> Shape:
        """The shape of an operand, of the first one in a list."""
        return shape_of(self.nodes(name)[0])

    def axes_of(self, name: str, rank: int) -> tuple[int, ...]:
        """An argument that names one or several dimensions, counted from the front."""
        value = self.arguments[name]
        several = value if isinstance(value, list | tuple) else (value,)
        return tuple(int(axis) % rank for axis in several)


def broadcast(site: Site) -> Axes:
    """Element by element, operands aligned at their last dimension."""
    return replace(same(site), shuffles=True)


def same(site: Site) -> Axes:
    """All of one rank, or aligned at the last dimension; places along an axis matter."""
    return Axes(len(site.result), _aligned(site), _range(len(site.result)), broadcasts=True)


def last_stays(site: Site) -> Axes:
    """The operator works along the last dimension."""
    last = len(site.result) - 1
    return replace(same(site), allows=lambda order: order[-1] == last)


def _aligned(site: Site) -> dict[str, Tags]:
    rank = len(site.result)
    return {name: _range(rank)[rank - len(site.shape(name)) :] for name in site.operands()}


def _range(count: int) -> Tags:
    return tuple(range(count))


def without(option: str) -> Callable[[Site], Axes | None]:
    """The operand's dimensions named by `option` are missing in the result."""

    def axes(site: Site) -> Axes | None:
        rank = len(site.shape("x"))
        gone = set(site.axes_of(option, rank))
        return _dropped(rank, gone) if gone else None

    return axes


def reduced(site: Site) -> Axes | None:
    """A reduction: the dimensions are missing, or of size one."""
    if site.arguments.get("keep_dims"):
        return same(site)
    return without("axis")(site)


def _dropped(rank: int, gone: set[int]) -> Axes:
    return Axes(rank, {"x": _range(rank)}, tuple(axis for axis in range(rank) if axis not in gone))


def shrunk(site: Site) -> Axes | None:
    """STRIDED_SLICE: the dimensions of its shrink mask are missing."""
    if site.arguments.get("ellipsis_mask") or site.arguments.get("new_axis_mask"):
        return None
    mask, rank = site.arguments.get("shrink_axis_mask", 0), len(site.shape("x"))
    return _dropped(rank, {axis for axis in range(rank) if mask >> axis & 1})


def added(operand: str) -> Callable[[Site], Axes]:
    """The result has one dimension more, named by `axis`."""

    def axes(site: Site) -> Axes:
        rank = len(site.result)
        (new,) = site.axes_of("axis", rank)
        kept = tuple(axis for axis in range(rank) if axis != new)
        return Axes(rank, {operand: kept}, _range(rank))

    return axes


def gathered(site: Site) -> Axes | None:
    """GATHER with one index or a list of them; a table of indices keeps its place."""
    indices = len(site.shape("indices"))
    if indices > 1 or site.arguments.get("batch_dims", 0):
        return None
    rank = len(site.shape("x"))
    (axis,) = site.axes_of("axis", rank)
    plain = _dropped(rank, set() if indices else {axis})
    operands = {"x": plain.operands["x"], "indices": (axis,) * indices}
    return Axes(rank, operands, plain.result, frozenset({"indices"}))


def fully_connected(site: Site) -> Axes | None:
    """The features stay last; in which order they stand is the filter's affair."""
    rank = len(site.shape("x"))
    if rank != len(site.result):
        return None
    leading, inputs, outputs = _range(rank - 1), rank - 1, rank
    operands = {"x": (*leading, inputs), "filter": (outputs, inputs), "bias": (outputs,)}
    return Axes(
        rank + 1,
        {name: operands[name] for name in site.operands()},
        (*leading, outputs),
        fixed=frozenset({"filter", "bias"}),
        shuffles=True,
        allows=lambda order: order[-2:] == (inputs, outputs),
    )


def batch_matmul(site: Site) -> Axes | None:
    """x[..., M, K] y[..., K, N]: a transposed right operand is an option of the operator."""
    if site.arguments.get("adj_x") or len({len(site.shape("x")), len(site.shape("y"))}) > 1:
        return None
    batch, rows = _range(len(site.result) - 2), len(site.result) - 2
    if site.arguments.get("adj_y"):
        columns, inner = rows + 1, rows + 2
    else:
        inner, columns = rows + 1, rows + 2
    right = tuple(sorted((inner, columns)))
    operands = {"x": (*batch, rows, inner), "y": (*batch, *right)}
    head = (*batch, rows)
    return Axes(
        rows + 3, operands, (*head, columns), allows=lambda order: order[: len(head)] == head
    )


def regrouped(site: Site) -> Axes | None:
    """RESHAPE: dimensions that merge or split are one axis; between those, ones are free."""
    before, after = site.shape("x"), site.result
    if any(size < 1 for size in (*before, *after)):
        return None
    tags: tuple[list[int], list[int]] = ([], [])
    count = 0
    for ones, joined in _groups(before, after):
        for side in (0, 1):
            tags[side].extend(range(count, count + ones[side]))
            count += ones[side]
        for side in (0, 1):
            tags[side].extend([count] * joined[side])
        count += bool(joined[0])
    return Axes(count, {"x": tuple(tags[0])}, tuple(tags[1]), shuffles=True)


Counts = tuple[int, int]


def _groups(before: Shape, after: Shape) -> Iterator[tuple[Counts, Counts]]:
    """How many dimensions of size one, then how many of equal product, on either side.

    >>> list(_groups((1, 6, 5, 5), (1, 2, 3, 25)))
    [((1, 1), (1, 2)), ((0, 0), (2, 1))]
    """
    rest = (list(before), list(after))
    while rest[0] or rest[1]:
        ones = (_drop_ones(rest[0]), _drop_ones(rest[1]))
        joined, products = [0, 0], [1, 1]
        while products[0] != products[1] or (rest[0] and not joined[0]):
            side = int(products[0] > products[1])
            products[side] *= rest[side].pop(0)
            joined[side] += 1
        yield ones, (joined[0], joined[1])


def _drop_ones(sizes: list[int]) -> int:
    count = next((place for place, size in enumerate(sizes) if size != 1), len(sizes))
    del sizes[:count]
    return count
