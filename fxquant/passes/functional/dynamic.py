"""The core dialect for every size of the named dimensions.

    %r = reshape(%x) {shape=[2,64]}   (batch=2)        %r = reshape(%x) {shape=[-1,64]}
    %r = reshape(%x) {shape=[3,64]}   (batch=3)   ->
    %e = expand(@cls) {size=[2,1,64]} (batch=2)        %e = expand_dim(@cls, %x) {dim=0, like_dim=0}

The core graph is made at two sizes. Where the two differ, a rule for the operator writes it without
the number; where there is none, the error names the user's line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import GraphModule, Node

from fxquant.ir.aten import argument_names, aten, is_aten, overload, packet_name
from fxquant.ir.operators import expand_dim, narrow_dim
from fxquant.tracing.dynamic import Varying, propagate, resize_inputs, varying_in
from fxquant.tracing.dynamic.generalizer import (
    Generalizer,
    Unwritable,
    at_two_sizes,
    described,
    dimensions_of,
)

Named = dict[str, Any]
Rule = Callable[["CoreGeneralizer", Node, Named], Node]
RULES: dict[str, Rule] = {}


def for_all_sizes(
    graph_module: GraphModule, write: Callable[[GraphModule], GraphModule]
) -> GraphModule:
    """What `write` makes of a graph, so that it holds for every size of the named dimensions.

    Raises:
        UnsupportedOp: operators that cannot be written for every size, with the user's lines.
    """
    found = CoreGeneralizer(*at_two_sizes(graph_module, resize_inputs, write)).run()
    propagate(found, {item.name: item.size for item in dimensions_of(graph_module)})
    return found


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how operators of these names are written for every size."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


class CoreGeneralizer(Generalizer):
    """Writes a core graph for every size."""

    def write(self, node: Node, args: Any, kwargs: Any) -> Node:
        """By the rule of the operator."""
        if not is_aten(node) or packet_name(node.target) not in RULES:
            raise Unwritable(f"{described((args, kwargs))}, a fixed number for the operator")
        named = {**dict(zip(argument_names(overload(node)), args, strict=False)), **kwargs}
        return RULES[packet_name(node.target)](self, node, named)

    def expanded(self, x: Node, axis: int, number: int | Varying, before: Node) -> Node:
        """By `expand_dim`."""
        like, like_dim, _ = self.place_of(number)
        return self.call(expand_dim, x, like, axis, like_dim, before=before)

    def place_of(self, number: int | Varying, most: int = 0) -> tuple[Node, int, int]:
        """The input and its dimension whose size a number is, and what is added to it."""
        formula = number.formula if isinstance(number, Varying) else None
        if formula is None or formula.factor != 1 or len(formula.names) > 1:
            raise Unwritable(f"{described(number)}, more than the size of one dimension")
        if abs(formula.offset) > most:
            raise Unwritable(f"{described(number)}, not the size of a dimension itself")
        return (*self.named[formula.names[0]], formula.offset)


# -- rules -----------------------------------------------------------------------------------------


@rule("reshape")
def reshape(g: CoreGeneralizer, node: Node, named: Named) -> Node:
    """One size that varies is -1; of several, those that stay in front or behind are left alone."""
    source, shape = named["self"], named["shape"]
    if len(varying_in(shape)) == 1:
        free = [-1 if isinstance(size, Varying) else size for size in shape]
        return g.call(aten.reshape.default, source, free, before=node)
    old = [g.extent(source, axis) for axis in range(len(g.shapes(source)[0]))]
    front = _common(old, shape)
    back = _common(old[front:][::-1], shape[front:][::-1])
    before, after = old[front : len(old) - back], shape[front : len(shape) - back]
    if len(varying_in(after)) > 1 or not before or not after:
        raise Unwritable(f"{described(shape)}, several sizes that vary in one reshape")
    if len(before) > 1:
        source = g.call(
            aten.flatten.using_ints, source, front, front + len(before) - 1, before=node
        )
    if len(after) == 1:
        assert isinstance(source, Node)
        return source
    free = [-1 if isinstance(size, Varying) else size for size in after]
    return g.call(aten.unflatten.int, source, front, free, before=node)


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many entries two lists have in common at their beginnings."""
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count


@rule("expand")
def expand(g: CoreGeneralizer, node: Node, named: Named) -> Node:
    """-1 where the size is there already, `expand_dim` where a 1 is repeated."""
    source, sizes = named["self"], list(named["size"])
    missing = len(sizes) - len(g.shapes(source)[0])
    repeated: list[tuple[int, Varying]] = []
    for axis, size in enumerate(sizes):
        if not isinstance(size, Varying):
            continue
        if axis >= missing and g.extent(source, axis - missing) == size:
            sizes[axis] = -1
        else:
            sizes[axis] = 1
            repeated.append((axis, size))
    whole = (
        bool(repeated)
        and missing == 0
        and all(size == -1 or size == g.extent(source, axis) for axis, size in enumerate(sizes))
    )
    new = source if whole else g.call(aten.expand.default, source, sizes, before=node)
    for axis, size in repeated:
        new = g.expanded(new, axis, size, node)
    assert isinstance(new, Node)
    return new


@rule("repeat")
def repeat(g: CoreGeneralizer, node: Node, named: Named) -> Node:
    """`expand_dim` where a dimension of size 1 is repeated, a repeat for the rest."""
    source, counts = named["self"], list(named["repeats"])
    missing = len(counts) - len(g.shapes(source)[0])
    repeated: list[tuple[int, Varying]] = []
    for axis, count in enumerate(counts):
        if isinstance(count, Varying):
            if axis >= missing and g.extent(source, axis - missing) != 1:
                raise Unwritable(f"{described(count)}, repeats of more than one element")
            counts[axis] = 1
            repeated.append((axis, count))
    new = g.call(aten.repeat.default, source, counts, before=node)
    for axis, count in repeated:
        new = g.expanded(new, axis, count, node)
    return new


@rule("full")
def full(g: CoreGeneralizer, node: Node, named: Named) -> Node:
    """A full of size 1, then `expand_dim`."""
    shape = named.pop("size")
    small = [1 if isinstance(size, Varying) else size for size in shape]
    value = named.pop("fill_value")
    new = g.call(aten.full.default, small, value, before=node, **named)
    for axis, size in enumerate(shape):
        if isinstance(size, Varying):
            new = g.expanded(new, axis, size, node)
    return new


@rule("slice")
def slice_(g: CoreGeneralizer, node: Node, named: Named) -> Node:
    """Counted from the end where it ends with the dimension, `narrow_dim` where it is longer."""
    source, axis = named["self"], named.get("dim", 0)
    extent = g.extent(source, axis)
    start, end, step = named.get("start"), named.get("end"), named.get("step", 1)
    if isinstance(extent, int) and isinstance(end, Varying) and start in (None, 0) and step == 1:
        like, like_dim, offset = g.place_of(end, most=2**31)
        return g.call(narrow_dim, source, like, axis, like_dim, offset, before=node)
    bounds = [_from_the_end(bound, extent) for bound in (start, end)]
    return g.call(aten.slice.Tensor, source, axis, *bounds, step, before=node)


@rule("select")
def select(g: CoreGeneralizer, node: Node, named: Named) -> Node:
    """Counted from the end."""
    extent = g.extent(named["self"], named["dim"])
    index = _from_the_end(named["index"], extent)
    if index == sys.maxsize:
        raise Unwritable(described(named["index"]))
    return g.call(aten.select.int, named["self"], named["dim"], index, before=node)


@rule(
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
)  # fmt: skip
def upsample(g: CoreGeneralizer, node: Node, named: Named) -> Node:
    """By its factors, where they are given."""
    named.pop("output_size")
    source, options = named.pop("self"), {}
    if "align_corners" in named:
        options["align_corners"] = named.pop("align_corners")
    factors = [factor for factor in named.values() if factor is not None]
    if not factors or len(factors) < len(named):
        raise Unwritable("it is resized to a size that varies; give scale_factor")
    packet = overload(node).overloadpacket
    return g.call(
        packet.vec, source, None, *options.values(), list(map(float, factors)), before=node
    )


def _from_the_end(bound: Any, extent: int | Varying) -> Any:
    """A bound as a negative number, or past every end; other bounds as they are."""
    if not isinstance(bound, Varying):
        return bound
    sizes = extent.values if isinstance(extent, Varying) else (extent,) * len(bound.values)
    distances = {size - value for size, value in zip(sizes, bound.values, strict=True)}
    if len(distances) > 1:
        raise Unwritable(f"{described(bound)}, no fixed distance from the end")
    distance = distances.pop()
    return sys.maxsize if distance == 0 else -distance
