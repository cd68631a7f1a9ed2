"""A small builder of core graphs for tests: each line is one operator, values get their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from fxquant.ir.aten import aten, packet_name
from fxquant.ir.edit import get_attribute, make_graph_module
from fxquant.ir.state import state_of
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import (
    ConstraintTable,
    asymmetric,
    carried,
    fixed,
    int32,
    refused,
    row,
    same_as,
    shared,
    symmetric,
)

INFINITY = float("inf")

TABLE = ConstraintTable(
    "toy",
    {
        "conv2d": row(
            input=asymmetric, weight=symmetric(0), bias=int32("input*weight"), fuses=True
        ),
        "linear": row(
            input=asymmetric, weight=symmetric(0), bias=int32("input*weight"), fuses=True
        ),
        "add": row(self=asymmetric, other=asymmetric, fuses=True, dtypes=("int8", "int16")),
        "mul": row(self=asymmetric, other=asymmetric, fuses=True),
        "matmul": row(self=asymmetric, other=symmetric()),
        "relu": row(self=asymmetric),
        "sigmoid": row(self=asymmetric, output=fixed(int8=(1 / 256, -128))),
        "avg_pool2d": row(self=asymmetric, output=same_as("self")),
        "max_pool2d": row(self=asymmetric, output=carried("self")),
        "reshape": row(self=asymmetric, output=carried("self")),
        "split": row(self=asymmetric, output=carried("self")),
        "getitem": row(self=asymmetric, output=carried("self")),
        "cat": row(tensors=shared, output=shared),
        "exp": refused("EXP is too steep for 8 bits"),
    },
    clamps=((0.0, INFINITY), (0.0, 6.0)),
)
"""A target that is small enough to reason about."""


class Builder:
    """Builds a core graph.

    b = Builder(w=torch.randn(4, 3, 3, 3))
    x = b.input("x", torch.randn(1, 3, 8, 8))
    graph_module = b.finish(b("conv2d", x, b.get("w")))
    """

    def __init__(self, **tensors: Tensor) -> None:
        self.root = nn.Module()
        for name, tensor in tensors.items():
            self.root.register_parameter(name, nn.Parameter(tensor))
        self.graph = Graph()

    def input(self, name: str, example: Tensor) -> Node:
        """A graph input."""
        return self._typed(self.graph.placeholder(name), example)

    def get(self, name: str) -> Node:
        """A stored tensor."""
        return self._typed(self.graph.get_attr(name), get_attribute(self.root, name).detach())

    def __call__(self, target: str, *args: Any, name: str | None = None) -> Node:
        """A call of `aten.<target>`; the overload `default` unless one is named."""
        packet, _, overload = target.partition(".")
        operator = getattr(getattr(aten, packet), overload or "default")
        return self.call(operator, *args, name=name)

    def call(self, function: Any, *args: Any, name: str | None = None) -> Node:
        """A call of any function."""
        title = name or packet_name(function)
        node = self.graph.create_node("call_function", function, args, name=title)
        return self._typed(node, function(*map_arg(args, lambda n: n.meta["val"])))

    def finish(self, *outputs: Node, config: QuantConfig | None = None) -> GraphModule:
        """The graph with its outputs, ready for annotate."""
        self.graph.output(outputs)
        graph_module = make_graph_module(self.root, self.graph)
        state = state_of(graph_module)
        state.properties = {"functional", "shapes"}
        state.target, state.constraints = TABLE.target, TABLE
        state.config = config or QuantConfig()
        return graph_module

    def _typed(self, node: Node, value: Any) -> Node:
        node.meta["val"] = value
        return node


def pooled_convolution(tensors: Mapping[str, Tensor] | None = None) -> GraphModule:
    """conv2d, relu, max_pool2d, reshape, linear: every common case of a small net."""
    torch.manual_seed(0)
    b = Builder(
        **(
            tensors
            or {
                "conv_weight": torch.randn(4, 3, 3, 3),
                "conv_bias": torch.randn(4),
                "fc_weight": torch.randn(10, 64),
                "fc_bias": torch.randn(10),
            }
        )
    )
    x = b.input("x", torch.randn(1, 3, 8, 8))
    conv = b("conv2d", x, b.get("conv_weight"), b.get("conv_bias"), [1, 1], [1, 1])
    pool = b("max_pool2d", b("relu", conv), [2, 2])
    flat = b("reshape", pool, [1, 64])
    return b.finish(b("linear", flat, b.get("fc_weight"), b.get("fc_bias")))
