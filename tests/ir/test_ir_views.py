"""Typed views of core nodes."""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import Node

from fxquant.ir.views import Convolution, arguments, convolution, layer, pool
from fxquant.passes.functionalize import Functionalize
from fxquant.tracing.trace import trace


def core_node(module: nn.Module, x: torch.Tensor) -> Node:
    """The one operator of a module's core graph."""
    graph_module = Functionalize().run(trace(module, (x,))).graph_module
    nodes: list[Node] = [n for n in graph_module.graph.nodes if n.op == "call_function"]
    assert len(nodes) == 1
    return nodes[0]


def test_a_convolution() -> None:
    node = core_node(nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), torch.ones(1, 4, 8, 8))
    view = convolution(node)
    assert isinstance(view, Convolution)
    assert view.weight.target == "weight"
    assert view.bias is None
    assert (view.stride, view.padding, view.groups) == ((2, 2), (0, 0), 2)
    assert not view.transposed


def test_a_transposed_convolution() -> None:
    module = nn.ConvTranspose1d(4, 8, 3, stride=2, output_padding=1)
    view = convolution(core_node(module, torch.ones(1, 4, 8)))
    assert view is not None
    assert view.transposed
    assert view.output_padding == (1,)


def test_a_linear_layer() -> None:
    node = core_node(nn.Linear(4, 8), torch.ones(2, 4))
    view = layer(node)
    assert view is not None
    assert view.bias is not None
    assert view.bias.target == "bias"
    assert convolution(node) is None


def test_a_pool() -> None:
    view = pool(core_node(nn.AvgPool2d(2), torch.ones(1, 4, 8, 8)))
    assert view is not None
    assert (view.kind, view.kernel_size, view.stride) == ("average", (2, 2), (2, 2))
    assert view.count_include_pad
    assert pool(core_node(nn.ReLU(), torch.ones(2))) is None


def test_arguments_fill_in_the_defaults() -> None:
    node = core_node(nn.Softmax(1), torch.ones(2, 3))
    assert arguments(node) == {"self": node.args[0], "dim": 1, "dtype": None}
