"""Operators without a rule, taken apart by PyTorch's own decomposition tables.

    %y = addcmul(%a, %b, %c)   ->   %m = mul(%b, %c); %y = add(%a, %m)

The decomposition is traced on fake tensors with the node's own arguments, so that its result is
core operators of exactly these shapes; what has a rule is never taken apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from fxquant.ir.aten import overload

from .registry import RULES


@lru_cache(maxsize=1)
def _table() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    packets = [torch.ops.aten, torch.ops.prims]
    names = {name for packet in packets for name in dir(packet) if not name.startswith("_")}
    overloads = [
        getattr(packet, name)
        for packet in packets
        for name in names
        if hasattr(packet, name) and hasattr(getattr(packet, name), "overloads")
    ]
    table.update(get_decompositions(overloads))
    return table


def decompose(node: Node) -> GraphModule | None:
    """The graph that computes what a node does by other operators; None where there is none.

    Its placeholders are the node's operands, in order of appearance in args and kwargs.
    """
    target = overload(node)
    table = {key: value for key, value in _table().items() if key not in RULES}
    operands = operands_of((node.args, node.kwargs))

    def call(*tensors: torch.Tensor) -> Any:
        values = iter(tensors)
        args, kwargs = _filled((node.args, node.kwargs), values)
        return _run(target, table, args, kwargs)

    try:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode:
            fakes = [_fake(operand.meta["val"]) for operand in operands]
        traced = make_fx(call, decomposition_table=table, tracing_mode="fake")(*fakes)
    except Exception:  # whatever a decomposition raises, it does not apply here
        return None
    if any(_same(inner, target) for inner in traced.graph.nodes):
        return None
    for inner in traced.graph.nodes:
        if inner.op == "get_attr":
            inner.meta["val"] = getattr(traced, str(inner.target))
    traced.graph.eliminate_dead_code()
    return traced


def _run(target: OpOverload, table: dict[Any, Any], args: Any, kwargs: Any) -> Any:
    if target in table:
        return table[target](*args, **kwargs)
    return target.decompose(*args, **kwargs) if _is_composite(target) else target(*args, **kwargs)


def _is_composite(target: OpOverload) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        target.name(), "CompositeImplicitAutograd"
    )


def _same(node: Node, target: OpOverload) -> bool:
    return node.op == "call_function" and node.target is target


def _fake(value: Any) -> torch.Tensor:
    assert isinstance(value, torch.Tensor | FakeTensor)
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)


def operands_of(arguments: Any) -> list[Node]:
    """The nodes inside arguments, in order of appearance."""
    if isinstance(arguments, Node):
        return [arguments]
    if isinstance(arguments, dict):
        return [node for part in arguments.values() for node in operands_of(part)]
    if isinstance(arguments, list | tuple):
        return [node for part in arguments for node in operands_of(part)]
    return []


def _filled(arguments: Any, values: Any) -> Any:
    if isinstance(arguments, Node):
        return next(values)
    if isinstance(arguments, dict):
        return {key: _filled(part, values) for key, part in arguments.items()}
    if isinstance(arguments, list | tuple):
        return type(arguments)(_filled(part, values) for part in arguments)
    return arguments
