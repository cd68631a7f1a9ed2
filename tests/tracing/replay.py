"""Run a model and its graph on other inputs than those of the trace, and compare every bit."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from fxquant.tracing import trace
from fxquant.tracing.structure import flatten


class ShapeCheck(fx.Interpreter):
    """Interprets a graph and compares each node's `meta["val"]` with what it computes."""

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        before = len(self.env)
        result = super().run_node(n)
        assert before == len(self.env)
        if n.op != "output" and "val" in n.meta:
            compare_shapes(n, n.meta["val"], result)
        return result


def compare_shapes(node: fx.Node, known: Any, result: Any) -> None:
    """The fake value of a node must have the shape and dtype of the true one."""
    if isinstance(result, torch.Tensor):
        assert isinstance(known, torch.Tensor), node.format_node()
        assert known.shape == result.shape, (node.format_node(), known.shape, result.shape)
        assert known.dtype == result.dtype, (node.format_node(), known.dtype, result.dtype)
    elif isinstance(result, tuple | list):
        for each_known, each in zip(known, result, strict=True):
            compare_shapes(node, each_known, each)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The tensors of nested results."""
    leaves: list[torch.Tensor] = []

    def add(name: str, tensor: torch.Tensor) -> int:
        leaves.append(tensor)
        return len(leaves) - 1

    flatten(value, "value", add)
    return leaves


def other(value: Any, generator: torch.Generator) -> Any:
    """Inputs of the same shapes with other values."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            fresh = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            return fresh.requires_grad_(value.requires_grad)
        return value.flip(0) if value.dim() else value
    if isinstance(value, dict):
        return {key: other(item, generator) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [other(item, generator) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def call(function: Any, args: Any, kwargs: Any) -> Any:
    """Call with fixed random numbers and inputs of its own."""
    torch.manual_seed(7)
    args, kwargs = copy.deepcopy((args, kwargs))
    return function(*args, **kwargs)


def assert_same(expected: Any, actual: Any) -> None:
    """Both results have one structure and the same bits."""
    assert type(expected) is type(actual)
    lefts, rights = tensors_of(expected), tensors_of(actual)
    assert len(lefts) == len(rights)
    for left, right in zip(lefts, rights, strict=True):
        assert left.dtype == right.dtype
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def assert_replays(
    model: Any,
    *args: Any,
    fake: bool = True,
    modes: tuple[bool, ...] = (False, True),
    copies: bool = True,
    **kwargs: Any,
) -> fx.GraphModule:
    """Trace in eval and train mode, and replay on other inputs; returns the last graph."""
    generator = torch.Generator().manual_seed(3)
    if not isinstance(model, nn.Module):
        modes = (False,)
    for mode in modes:
        if isinstance(model, nn.Module):
            model.train(mode)
        graph = trace(model, args, kwargs=kwargs, fake=fake)
        graph.graph.lint()
        assert all(n.meta.get("source") for n in graph.graph.nodes if n.op == "call_function")
        for _ in range(2):
            new_args, new_kwargs = other(args, generator), other(kwargs, generator)
            expected = call(model, new_args, new_kwargs)
            assert_same(expected, call(graph, new_args, new_kwargs))
            if isinstance(model, nn.Module):
                assert_same_state(model, graph)
        if copies and not kwargs:
            copied = copy.deepcopy(graph)
            assert_same(call(graph, new_args, {}), call(copied, new_args, {}))
            torch.manual_seed(7)
            inputs = copy.deepcopy(new_args)
            ShapeCheck(copied).run(*inputs)
    return graph


def assert_same_state(model: nn.Module, graph: fx.GraphModule) -> None:
    """The graph's parameters and buffers have the model's names and values."""
    expected, actual = model.state_dict(), graph.state_dict()
    assert list(expected) == list(actual)
    for name, tensor in expected.items():
        torch.testing.assert_close(tensor, actual[name], rtol=0, atol=0, equal_nan=True)


def targets(graph: fx.GraphModule) -> list[str]:
    """What each node calls, in words."""
    return [
        str(n.target) if isinstance(n.target, str) else getattr(n.target, "__name__", str(n.target))
        for n in graph.graph.nodes
        if n.op not in {"placeholder", "output"}
    ]
