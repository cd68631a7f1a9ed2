"""Graphs as legalize makes them, channels first with transposes around convolutions.

Their floats are small whole numbers, so that sums are exact in any order and results of two graphs
that compute the same are equal to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QTensor, QType
from fxquant.backends.tflite.layout.assign_layout import AssignLayout
from fxquant.ir.edit import copy_graph_module
from fxquant.ir.types import TensorType
from tests.backends.tflite.hand_graph import HandGraph

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
GRID = QType("int8", 0.25, 3)


def whole(*shape: int, seed: int = 0, low: int = -2, high: int = 3) -> Tensor:
    """Small whole numbers as floats, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator).float()


class LayoutGraph(HandGraph):
    """A graph of channels-first values; `quantized` makes them int8 of one scale."""

    def __init__(self, *, quantized: bool = False) -> None:
        super().__init__()
        self.quantized = quantized
        self._count = 0

    @property
    def out(self) -> dict[str, QType]:
        """The keyword that gives a result its scale."""
        return {"out": GRID} if self.quantized else {}

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(self.values[node].shape)

    def weight(self, *shape: int) -> Node:
        """A stored weight, per channel where quantized."""
        self._count += 1
        data = whole(*shape, seed=self._count, low=-1, high=2)
        if not self.quantized:
            return self.stored(f"w{self._count}", data)
        scales = torch.linspace(0.1, 0.3, shape[0])
        return self.constant(f"w{self._count}", (data * 9).to(torch.int8), scales, 0, 0)

    def plain(self, *shape: int) -> Node:
        """A stored operand of element-wise operators."""
        self._count += 1
        data = whole(*shape, seed=self._count)
        if not self.quantized:
            return self.stored(f"c{self._count}", data)
        return self.constant(f"c{self._count}", data.to(torch.int8), 0.5, 1)

    def bias(self, channels: int) -> Node:
        """The bias of a convolution."""
        self._count += 1
        data = whole(channels, seed=self._count)
        if not self.quantized:
            return self.stored(f"b{self._count}", data)
        scales = torch.linspace(0.1, 0.3, channels) * GRID.scale
        return self.constant(f"b{self._count}", data.to(torch.int32), scales, 0, 0)

    def entry(self, *shape: int) -> Node:
        """An input, quantized where the graph is."""
        x = self.input("x", whole(*shape, seed=99))
        return self.call(tfl.quantize, x, out=GRID) if self.quantized else x

    def leave(self, *outputs: Node) -> GraphModule:
        """The graph with float outputs."""
        if self.quantized:
            outputs = tuple(self.call(tfl.dequantize, node) for node in outputs)
        return self.finish(*outputs)

    def transpose(self, x: Node, *perm: int) -> Node:
        """An explicit transpose."""
        return self.call(tfl.transpose, x, perm=perm)

    def conv(self, x: Node, channels: int, kernel: int = 1) -> Node:
        """A convolution of a channels-first value, clamped so that numbers stay small."""
        last = self.transpose(x, *TO_LAST)
        weight = self.weight(channels, kernel, kernel, self.shape(x)[1])
        y = self.call(
            tfl.conv_2d,
            last,
            weight,
            self.bias(channels),
            fused_activation_function="RELU6",
            **self.out,
        )
        return self.transpose(y, *TO_FIRST)

    def pool(self, x: Node) -> Node:
        """Max pooling of a channels-first value."""
        last = self.transpose(x, *TO_LAST)
        y = self.call(tfl.max_pool_2d, last, filter_height=3, filter_width=3)
        return self.transpose(y, *TO_FIRST)

    def linear(self, x: Node, features: int) -> Node:
        """FULLY_CONNECTED with constant weights."""
        weight = self.weight(features, self.shape(x)[-1])
        rank = len(self.shape(x))
        return self.call(
            tfl.fully_connected,
            x,
            weight,
            self.bias(features),
            keep_num_dims=rank > 2,
            fused_activation_function="RELU6",
            **self.out,
        )


def assigned(graph_module: GraphModule, **options: Any) -> GraphModule:
    """The graph after the pass; the given one stays."""
    result = AssignLayout(**options).run(copy_graph_module(graph_module)).graph_module
    result.recompile()
    result.graph.lint()
    return result


def transposes(graph_module: GraphModule) -> list[Node]:
    """The transposes that are left."""
    return [node for node in graph_module.graph.nodes if node.target is tfl.transpose]


def transposed_bytes(graph_module: GraphModule) -> int:
    """How many bytes they move."""
    kinds = [node.meta["type"] for node in transposes(graph_module)]
    return sum(torch.Size(kind.shape).numel() * kind.dtype.itemsize for kind in kinds)


class _Checked(Interpreter):
    """Runs a graph and compares each value with the type that its node says."""

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.op != "output":
            assert _type(value) == n.meta["type"], n
        return value


def _type(value: Any) -> Any:
    if isinstance(value, QTensor):
        return value.type
    return TensorType.of(value) if isinstance(value, Tensor) else [_type(part) for part in value]


def run(graph_module: GraphModule, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The outputs, every type checked on the way; borders channels first whatever the graph's."""
    nodes = list(graph_module.graph.nodes)
    orders = [node.meta.get("io_permutation") for node in nodes if node.op == "placeholder"]
    given = [
        value if order is None else value.permute(order).contiguous()
        for value, order in zip(inputs, orders, strict=True)
    ]
    results = _Checked(graph_module).run(*given)
    back = nodes[-1].meta.get("io_permutation") or [None] * len(results)
    return tuple(
        value if order is None else value.permute([order.index(i) for i in range(len(order))])
        for value, order in zip(results, back, strict=True)
    )
