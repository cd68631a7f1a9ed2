"""The file's operators for every size of the named dimensions.

    %y = reshape(%x, (2,4,8,8))  (batch=2)
    %y = reshape(%x, (3,4,8,8))  (batch=3)   ->   %y = reshape(%x, (-1,4,8,8))

Sizes that no -1 and no 0 expresses are computed by the file: Shape, Slice, Concat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from fxquant.backends.onnx.dialect import convolution as images
from fxquant.backends.onnx.dialect import elementwise, movement
from fxquant.ir.edit import tensor_at
from fxquant.ir.state import state_of
from fxquant.tracing.dynamic import Formula, Varying, propagate, varying_in
from fxquant.tracing.dynamic.generalizer import (
    Generalizer,
    Unwritable,
    at_two_sizes,
    described,
    dimensions_of,
)

from .rewriter import Rewriter, is_sizes

END = 2**63 - 1
COMPUTED: dict[Callable[..., Any], tuple[int, ...]] = {
    movement.expand: (1,),
    movement.tile: (1,),
    movement.slice: (2,),
    images.resize: (3,),
}
"""Operators with vectors that the file may compute: which of their inputs."""


def for_all_sizes(
    graph_module: GraphModule, write: Callable[[GraphModule], GraphModule], opset: int
) -> GraphModule:
    """What `write` makes of a core graph, so that it holds for every size.

    Raises:
        UnsupportedOp: operators that cannot be written for every size, with the user's lines.
    """
    graphs, sizes = at_two_sizes(graph_module, propagate, write)
    found = OnnxGeneralizer(graphs, sizes, opset).run()
    _retype(found, {item.name: item.size for item in dimensions_of(graph_module)})
    return found


class OnnxGeneralizer(Generalizer):
    """Writes a graph of the dialect for every size."""

    def __init__(
        self, graphs: Sequence[GraphModule], sizes: Sequence[Mapping[str, int]], opset: int
    ) -> None:
        super().__init__(graphs, sizes)
        self.rewriter = Rewriter(self.graph, self.root, opset, False)
        self.computed: dict[Formula, Node] = {}

    def write(self, node: Node, args: Any, kwargs: Any) -> Node | None:
        """Vectors of sizes with -1 or 0, or computed; attributes are fixed."""
        assert callable(node.target)
        if varying_in(kwargs):
            raise Unwritable(f"{described(kwargs)}, a fixed number for {node.target.__name__}")
        new = list(args)
        if node.target is movement.reshape and self._reshaped(args[0], new):
            node.args = tuple(new)
            return None
        if node.target is movement.slice and self._sliced(args[0], new):
            node.args = tuple(new)
            return None
        places = (1,) if node.target is movement.reshape else COMPUTED.get(node.target, ())
        for place in places:
            if varying_in(args[place]):
                new[place] = self._vector(args[place], node)
        if varying_in(new):
            raise Unwritable(f"{described(args)}, a fixed number for {node.target.__name__}")
        node.args = tuple(new)
        return None

    def _reshaped(self, source: Node, args: list[Any]) -> bool:
        """0 where a size stays in its place, -1 for one that is left."""
        shape = list(args[1])
        if len(varying_in(shape)) > 1:
            old = self.shapes(source)[0]
            for axis, size in enumerate(shape[: len(old)]):
                if isinstance(size, Varying) and self.extent(source, axis) == size:
                    shape[axis] = 0
        if len(varying_in(shape)) > 1 or (-1 in shape and varying_in(shape)):
            return False
        args[1] = tuple(-1 if isinstance(size, Varying) else size for size in shape)
        return True

    def _sliced(self, source: Node, args: list[Any]) -> bool:
        """Bounds that are at a fixed distance from the end of the dimension, or pass it."""
        starts, ends = [], []
        for start, end, axis, step in zip(*args[1:], strict=True):
            extent = self.extent(source, axis)
            starts.append(_from_the_end(start, extent))
            if isinstance(end, Varying) and end == extent:
                end = END
            elif isinstance(end, Varying) and isinstance(extent, Varying) and step < 0:
                passed = all(e == -x - 1 for e, x in zip(end.values, extent.values, strict=True))
                end = -END if passed else end
            ends.append(_from_the_end(end, extent))
        args[1], args[2] = tuple(starts), tuple(ends)
        return not varying_in(args)

    def _vector(self, sizes: Sequence[int | Varying], node: Node) -> Node:
        with self._before(node):
            return self.rewriter.sizes(
                [self._size(size, node) if isinstance(size, Varying) else size for size in sizes]
            )

    def _size(self, size: Varying, node: Node) -> Node:
        formula, r = size.formula, self.rewriter
        if formula is None:
            raise Unwritable(described(size))
        if formula not in self.computed:
            found = r.size_of(*self.named[formula.names[0]])
            for name in formula.names[1:]:
                found = r.emit(elementwise.mul, found, r.size_of(*self.named[name]))
            if formula.factor != 1:
                found = r.emit(elementwise.mul, found, formula.factor)
            if formula.offset:
                found = r.emit(elementwise.add, found, formula.offset)
            self.computed[formula] = found
        return self.computed[formula]

    def _before(self, node: Node) -> Any:
        self.rewriter.origin = node
        return self.graph.inserting_before(node)

    def expanded(self, x: Node, axis: int, number: int | Varying, before: Node) -> Node:
        """By Expand; sizes of 1 leave a dimension as it is."""
        sizes: list[int | Varying] = [1] * len(x.meta["val"].shape)
        sizes[axis] = number
        vector = self._vector(sizes, before)
        with self._before(before):
            node = self.rewriter.emit(movement.expand, x, vector)
        self.added.append(node)
        return node


def _from_the_end(bound: Any, extent: int | Varying) -> Any:
    """A bound that varies as the dimension does, as a negative number; others as they are."""
    if not isinstance(bound, Varying) or not isinstance(extent, Varying):
        return bound
    distances = {size - value for size, value in zip(extent.values, bound.values, strict=True)}
    return -distances.pop() if len(distances) == 1 and min(distances) > 0 else bound


def _retype(root: GraphModule, sizes: Mapping[str, int]) -> None:
    """The type of every value at some sizes; those computed from shapes keep their numbers."""
    signature = state_of(root).signature
    inputs = root.graph.find_nodes(op="placeholder")
    for node, spec in zip(inputs, signature.inputs, strict=True):
        node.meta["val"] = torch.empty(spec.resized(sizes), dtype=spec.dtype, device="meta")
    for node in root.graph.nodes:
        if node.op == "get_attr" and not is_sizes(node):
            node.meta["val"] = tensor_at(root, node).detach().to("meta")
        elif node.op == "call_function":
            args, kwargs = map_arg((node.args, node.kwargs), lambda item: item.meta["val"])
            node.meta["val"] = node.target(*args, **kwargs)
