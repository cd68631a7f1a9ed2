"""One operator of the graph as the labelling problem sees it: its slots and its possible forms.

A *slot* is one operand or result; a *form* is a `Layout` of the operator's logical axes (see
`axes`), from which the layout of every slot follows. An operator without a rule is *pinned*: it
has one form, in which each slot is as the graph has it.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch.fx import Node

from .axes import Axes, Site, Tags
from .layouts import Layout, Order, Shape, Shuffle, natural, shuffled
from .rules import RULES, Rule
from .typed import shape_of

PINNED = Layout(())


@dataclass(frozen=True, eq=False)
class Slot:
    """One operand or result.

    Attributes:
        name: the parameter; "result" for a result.
        node: the value.
        shape: its shape as the graph has it.
        tags: the logical axis of each dimension.
        fixed: its dimensions stay in this order.
    """

    name: str
    node: Node
    shape: Shape
    tags: Tags
    fixed: Layout | None = None


@dataclass(eq=False)
class Operator:
    """One operator, with the forms that are worth trying.

    Attributes:
        node: the operator.
        slots: its operands, then its results.
        axes: how the slots hang together; None where it is pinned.
        form: the form chosen so far.
        forms: the forms that neighbors offered, and the family of each (see `problem`).
    """

    node: Node
    slots: list[Slot]
    axes: Axes | None
    rule: Rule | None = None
    form: Layout = PINNED
    forms: dict[Layout, int] = field(default_factory=dict)
    _layouts: dict[tuple[Slot, Layout], Layout] = field(default_factory=dict)

    def layout(self, slot: Slot, form: Layout) -> Layout:
        """The layout that a slot has in a form."""
        key = (slot, form)
        known = self._layouts.get(key)
        if known is None:
            known = self._layouts[key] = _layout(slot, form)
        return known

    def form_with(self, slot: Slot, layout: Layout) -> Layout | None:
        """The form in which a slot has that layout; None if there is none."""
        axes = self.axes
        if axes is None or (layout.shuffles and not axes.shuffles):
            return None
        read = _read(slot, layout)
        if read is None:
            return None
        form = Layout(_completed(read.order, axes.count), read.shuffles)
        if axes.allows is not None and not axes.allows(form.order):
            return None
        if form.shuffles and not all(_can_shuffle(slot, form) for slot in self.slots):
            return None
        return form

    def orders(self, form: Layout) -> dict[str, Order]:
        """The order of each slot's dimensions, by parameter."""
        return {slot.name: self.layout(slot, form).order for slot in self.slots}


def _layout(slot: Slot, form: Layout) -> Layout:
    rank = len(slot.tags)
    order = list(range(rank))
    if slot.fixed is None:
        places = {axis: place for place, axis in enumerate(form.order)}
        order.sort(key=lambda dimension: places[slot.tags[dimension]])
    elif not slot.tags:
        return slot.fixed
    shuffles: list[Shuffle] = []
    for shuffle in form.shuffles:
        dimensions = [d for d in range(rank) if slot.tags[d] == shuffle.axis and slot.shape[d] != 1]
        if len(dimensions) == 1:
            shuffles.append(shuffle._replace(axis=dimensions[0]))
        elif dimensions:
            order = _permuted(order, dimensions, shuffle.order)
    return Layout(tuple(order), tuple(sorted(shuffles)))


def _permuted(order: list[int], dimensions: list[int], shuffle: Order) -> list[int]:
    """Dimensions that are one axis, in the order in which that axis is shuffled."""
    moved = iter(dimensions[place] for place in shuffle)
    return [next(moved) if dimension in dimensions else dimension for dimension in order]


def _read(slot: Slot, layout: Layout) -> Layout | None:
    """The order of the slot's axes, and how they are shuffled; None where one is torn apart."""
    if slot.fixed is not None:
        order = tuple(sorted(set(slot.tags))) if layout.order == slot.fixed.order else None
        if order is None:
            return None
    else:
        order = tuple(dict.fromkeys(slot.tags[dimension] for dimension in layout.order))
    shuffles: list[Shuffle] = []
    for axis in order:
        dimensions = [d for d in layout.order if slot.tags[d] == axis]
        if len(dimensions) == 1:
            shuffle = layout.shuffle_of(dimensions[0])
            shuffles.extend([] if shuffle is None else [shuffle._replace(axis=axis)])
        elif any(layout.shuffle_of(dimension) for dimension in dimensions):
            return None
        else:
            first = layout.order.index(dimensions[0])
            if list(layout.order[first : first + len(dimensions)]) != dimensions:
                return None
            ascending = sorted(dimensions)
            sizes = [slot.shape[dimension] for dimension in ascending]
            shuffles.extend(shuffled(axis, sizes, [ascending.index(d) for d in dimensions]))
    return Layout(order, tuple(sorted(shuffles)))


def _can_shuffle(slot: Slot, form: Layout) -> bool:
    """Whether the dimensions of an axis are one, or just those that are shuffled."""
    for shuffle in form.shuffles:
        sizes = tuple(
            size
            for size, tag in zip(slot.shape, slot.tags, strict=True)
            if tag == shuffle.axis and size != 1
        )
        if len(sizes) > 1 and sizes != shuffle.sizes:
            return False
        if len(sizes) == 1 and sizes[0] != _product(shuffle.sizes):
            return False
    return True


def _product(sizes: Shape) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def _completed(order: Order, count: int) -> Order:
    """The order with the axes that it lacks, each behind its natural predecessor."""
    found = list(order)
    for axis in range(count):
        if axis not in order:
            found.insert(found.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(found)


def operator_at(node: Node) -> Operator:
    """An operator as a part of the problem."""
    results = _results(node)
    site = _site(node, results)
    rule = RULES.get(_name(node))
    axes = rule.axes(site) if rule is not None and results else None
    if axes is None:
        slots = [pinned(name, item) for name in site.operands() for item in site.nodes(name)]
        return Operator(node, [*slots, *(pinned("result", item) for item in results)], None)
    slots = [
        _slot(name, item, axes.operands[name], name in axes.fixed)
        for name in site.operands()
        for item in site.nodes(name)
    ]
    slots.extend(_slot("result", item, axes.result, False) for item in results)
    return Operator(node, slots, axes, rule, natural(axes.count))


def pinned(name: str, node: Node, layout: Layout | None = None) -> Slot:
    """A slot whose layout is given; as the graph has it, if by nothing else."""
    shape = shape_of(node)
    return Slot(name, node, shape, (), natural(len(shape)) if layout is None else layout)


def _slot(name: str, node: Node, tags: Tags, fixed: bool) -> Slot:
    shape = shape_of(node)
    return Slot(name, node, shape, tags, natural(len(shape)) if fixed else None)


def _name(node: Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _results(node: Node) -> list[Node]:
    """The node itself, or what is taken out of it where it makes several values."""
    if not isinstance(node.meta.get("type", node.meta.get("val")), list | tuple):
        return [node]
    return [user for user in node.users if user.target is operator.getitem]


def _site(node: Node, results: list[Node]) -> Site:
    return Site(arguments_of(node), shape_of(results[0]) if results else ())


def arguments_of(node: Node) -> dict[str, Any]:
    """The arguments of an operator by parameter, defaults filled in."""
    assert callable(node.target)
    bound = _signature(node.target).bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def set_argument(node: Node, name: str, value: Any) -> None:
    """Replace one argument, wherever it stands."""
    if name in node.kwargs:
        node.kwargs = {**node.kwargs, name: value}
        return
    assert callable(node.target)
    place = list(_signature(node.target).parameters).index(name)
    if place < len(node.args):
        node.update_arg(place, value)
    else:
        node.kwargs = {**node.kwargs, name: value}
