"""Writes the nodes that stand for one operator: names, types, source lines.

    write = Writer(root, origin)
    gate = write(aten.sigmoid.default, x, name="l0_f_3")     %lstm_l0_f_3 = sigmoid(%x)

Steps of a loop compute values of the same shapes, so the type of a call is computed once.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from fxquant.ir.edit import inherit
from fxquant.passes.recurrent.whole import KEY, Place
from fxquant.quant.config import PART_OF
from fxquant.quant.grouping import GRID


class Writer:
    """Makes nodes right before the operator that they replace.

    Args:
        root: the graph and its tensors.
        origin: the operator.
        operator_name: what it is called in configurations, e.g. `lstm`.
    """

    def __init__(self, root: GraphModule, origin: Node, operator_name: str) -> None:
        self.root, self.origin = root, origin
        self.operator_name = operator_name
        self._types: dict[Any, Any] = {}
        self._layer: Place | None = None
        self._mode = _fake_mode(origin)

    @contextlib.contextmanager
    def within(self, layer: str | None, backwards: bool) -> Iterator[None]:
        """Note of the nodes made inside that they are parts of a layer, unless it is None."""
        self._layer = None if layer is None else Place(layer, "", backwards)
        yield
        self._layer = None

    def __call__(
        self, target: OpOverload, *args: Any, name: str, grid: str | None = None, part: str = ""
    ) -> Node:
        """A node that calls an operator.

        Args:
            target: the operator.
            *args: its arguments.
            name: of the node, behind that of the operator that is replaced.
            grid: names the set of values that share one.
            part: what the node is in a step.
        """
        with self.root.graph.inserting_before(self.origin):
            node = self.root.graph.create_node(
                "call_function", target, args, {}, name=f"{self.origin.name}_{name}"
            )
        node.meta["val"] = self._type(target, args)
        return self._finish(node, grid, part)

    def parts(self, whole: Node, name: str, grid: str | None = None) -> list[Node]:
        """Every result of an operator that has several."""
        return [
            self._part(whole, index, f"{name}_{index}", grid)
            for index in range(len(whole.meta["val"]))
        ]

    def _part(self, whole: Node, index: int, name: str, grid: str | None) -> Node:
        with self.root.graph.inserting_before(self.origin):
            node = self.root.graph.create_node(
                "call_function", operator.getitem, (whole, index), {},
                name=f"{self.origin.name}_{name}",
            )  # fmt: skip
        node.meta["val"] = whole.meta["val"][index]
        return self._finish(node, grid)

    def _finish(self, node: Node, grid: str | None, part: str = "") -> Node:
        node.meta[PART_OF] = self.operator_name
        if grid is not None:
            node.meta[GRID] = grid
        if self._layer is not None:
            node.meta[KEY] = self._layer._replace(part=part)
        return inherit(node, self.origin, value=False)

    def _type(self, target: OpOverload, args: Any) -> Any:
        key = (target, str(map_arg(args, _shape)))
        if key not in self._types:
            with self._mode:
                fakes = map_arg(args, lambda node: self._fake(node.meta["val"]))
                value = target(*fakes)
            self._types[key] = tuple(value) if isinstance(value, list) else value
        return self._types[key]

    def _fake(self, value: Tensor) -> Tensor:
        if isinstance(value, FakeTensor):
            return value
        return self._mode.from_tensor(value.detach(), static_shapes=True)


def _shape(node: Node) -> Any:
    value = node.meta["val"]
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else node


def _fake_mode(node: Node) -> FakeTensorMode:
    values = (operand.meta["val"] for operand in node.all_input_nodes)
    found = next((value for value in values if isinstance(value, FakeTensor)), None)
    return FakeTensorMode() if found is None else found.fake_mode
