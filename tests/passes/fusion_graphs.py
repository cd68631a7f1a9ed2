"""Graphs for the tests of fusion: traced, functional, and fused under validation and lint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from fxquant.ir.aten import packet_name
from fxquant.passes.functionalize import Functionalize
from fxquant.passes.fuse_patterns import FusePatterns
from fxquant.passes.instruments import Lint, instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.validation import Validate
from fxquant.tracing import trace

Model = nn.Module | Callable[..., Any]


def core(model: Model, *shapes: tuple[int, ...]) -> GraphModule:
    """The core graph of a model for inputs of some shapes."""
    return Pipeline((Functionalize(),))(trace(model, tuple(torch.zeros(s) for s in shapes)))


def fuse(graph_module: GraphModule, *names: str) -> GraphModule:
    """The graph with patterns fused; validation and lint watch."""
    with instruments(Validate(), Lint()):
        return Pipeline((FusePatterns(names),))(graph_module)


def fused(model: Model, *shapes: tuple[int, ...], names: tuple[str, ...] = ()) -> GraphModule:
    """The core graph of a model with patterns fused."""
    return fuse(core(model, *shapes), *names)


def operators(graph_module: GraphModule) -> list[str]:
    """The names of the operators, in order."""
    nodes = graph_module.graph.nodes
    return [packet_name(node.target) for node in nodes if node.op == "call_function"]
