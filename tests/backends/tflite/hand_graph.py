"""Graphs of the tfl dialect made by hand: each call is computed at once, which gives its type.

graph = HandGraph()
x = graph.input("x", torch.zeros(1, 8, 8, 4, dtype=torch.int8), QType("int8", 0.1, -3))
y = graph.call(tfl.reshape, x, (1, -1))
graph_module = graph.finish(y)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QTensor, QType
from fxquant.ir.types import TensorType


class HandGraph:
    """A graph under construction, with the value of every node on example inputs."""

    def __init__(self) -> None:
        self.graph, self.root = Graph(), nn.Module()
        self.values: dict[Node, Any] = {}

    def input(self, name: str, example: Tensor, out: QType | None = None) -> Node:
        """An input; with `out` the integers get that meaning."""
        node = self._typed(self.graph.placeholder(name), example)
        return node if out is None else self.call(tfl.bind, node, out=out)

    def stored(self, name: str, data: Tensor) -> Node:
        """A stored tensor as it is."""
        self.root.register_buffer(name, data)
        return self._typed(self.graph.get_attr(name), data)

    def constant(
        self,
        name: str,
        data: Tensor,
        scale: Any,
        zero_point: Any = 0,
        axis: int | None = None,
        storage: str | None = None,
    ) -> Node:
        """A stored tensor of integers that stand for reals."""
        stored = self.stored(name, data)
        scales = tuple(scale.tolist()) if isinstance(scale, Tensor) else scale
        kwargs = {} if storage is None else {"storage": storage}
        return self.call(tfl.constant, stored, scales, zero_point, axis, **kwargs)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        """One use of a function of the dialect."""
        node = self.graph.call_function(function, args, kwargs)
        given = map_arg((args, kwargs), lambda each: self.values[each])
        return self._typed(node, function(*given[0], **given[1]))

    def part(self, node: Node, position: int) -> Node:
        """One result of an operator with several."""
        import operator

        part = self.graph.call_function(operator.getitem, (node, position))
        return self._typed(part, self.values[node][position])

    def finish(self, *outputs: Node) -> GraphModule:
        """The graph with these outputs; integers leave it as they are."""
        results = [
            self.call(tfl.unbind, node) if isinstance(self.values[node], QTensor) else node
            for node in outputs
        ]
        self.graph.output(tuple(results))
        return GraphModule(self.root, self.graph)

    def _typed(self, node: Node, value: Any) -> Node:
        self.values[node] = value
        node.meta["type"] = _type_of(value)
        return node


def _type_of(value: Any) -> Any:
    if isinstance(value, QTensor):
        return value.type
    if isinstance(value, Tensor):
        return TensorType.of(value)
    return [_type_of(part) for part in value]


def random_int8(*shape: int, seed: int = 0) -> Tensor:
    """Integers over the whole range, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=generator)


def random_float(*shape: int, seed: int = 0) -> Tensor:
    """Floats of a normal distribution, the same every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def int8_net() -> GraphModule:
    """A small int8 net: convolution, depthwise, addition of the two, mean, fully connected."""
    graph = HandGraph()
    x = graph.input("x", random_int8(1, 8, 8, 4), QType("int8", 0.05, -3))
    scales = torch.linspace(0.001, 0.004, 8)
    weight = graph.constant("conv.weight".replace(".", "_"), random_int8(8, 3, 3, 4), scales, 0, 0)
    bias = graph.constant("conv_bias", torch.arange(8, dtype=torch.int32) * 50, scales * 0.05, 0, 0)
    conv = graph.call(
        tfl.conv_2d,
        x,
        weight,
        bias,
        stride_h=2,
        stride_w=2,
        fused_activation_function="RELU6",
        out=QType("int8", 0.0235, -128),
    )
    deep = graph.constant("deep_weight", random_int8(1, 3, 3, 8, seed=1), scales, 0, 3)
    zeros = graph.constant("deep_bias", torch.zeros(8, dtype=torch.int32), scales * 0.0235, 0, 0)
    depthwise = graph.call(
        tfl.depthwise_conv_2d,
        conv,
        deep,
        zeros,
        depth_multiplier=1,
        padding="SAME",
        out=QType("int8", 0.1, 5),
    )
    total = graph.call(tfl.add, conv, depthwise, out=QType("int8", 0.11, -7))
    mean = graph.call(tfl.mean, total, (1, 2), keep_dims=False, out=QType("int8", 0.05, 2))
    head = graph.constant("head_weight", random_int8(5, 8, seed=2), (0.01,))
    none = graph.constant("head_bias", torch.zeros(5, dtype=torch.int32), (0.05 * 0.01,))
    result = graph.call(tfl.fully_connected, mean, head, none, out=QType("int8", 0.2, 0))
    return graph.finish(result)


def float_net() -> GraphModule:
    """A small float net: convolution, pooling, split in two, concatenation the other way round."""
    graph = HandGraph()
    x = graph.input("x", random_float(1, 8, 8, 3))
    weight = graph.stored("weight", random_float(8, 3, 3, 3, seed=1))
    bias = graph.stored("bias", random_float(8, seed=2))
    conv = graph.call(tfl.conv_2d, x, weight, bias, fused_activation_function="RELU")
    pool = graph.call(
        tfl.max_pool_2d, conv, filter_height=2, filter_width=2, stride_h=2, stride_w=2
    )
    parts = graph.call(tfl.split, pool, 3, num_splits=2)
    first, second = graph.part(parts, 0), graph.part(parts, 1)
    joined = graph.call(tfl.concatenation, [second, first], axis=3)
    flat = graph.call(tfl.reshape, joined, (1, -1))
    return graph.finish(graph.call(tfl.softmax, flat))
