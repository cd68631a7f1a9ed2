"""Operators without a rule, taken apart by PyTorch's own decomposition tables.

    %y = addcmul(%a, %b, %c)   ->   %m = mul(%b, %c); %y = add(%a, %m)

The decomposition is traced on fake tensors with the node's own arguments, so that its result is
core operators of exactly these shapes; what has a rule is never taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any

import torch
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from fxquant.ir.aten import overload

from .pure import without_writes


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
    # In-place operators are left to `pure`: their decompositions end in copy_.
    table = {key: part for key, part in table.items() if not _is_mutable(key)}
    table[torch.ops.aten.lstm.input] = _lstm
    return table


def _is_mutable(key: Any) -> bool:
    return isinstance(key, OpOverload) and key._schema.is_mutable


def _lstm(
    x: torch.Tensor,
    state: list[torch.Tensor],
    params: list[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """torch's own decomposition without its choice of a fused CPU operator."""
    from torch._decomp import decompositions as parts

    projected = state[0].size(2) != state[1].size(2)
    gathered = parts.gather_params(params, has_biases, projected)
    hidden = list(zip(state[0], state[1], strict=True))
    options = (has_biases, layers, dropout, train, bidirectional, batch_first)
    out, final = parts._rnn_helper(x, hidden, gathered, *options, parts.one_layer_lstm)
    last = list(zip(*final, strict=True))
    return out, torch.stack(last[0], 0), torch.stack(last[1], 0)


def decompose(node: Node, rules: Container[OpOverload]) -> GraphModule | None:
    """The graph that computes what a node does by other operators; None where there is none.

    Args:
        node: an operator of the core dialect.
        rules: the operators that the backend has rules for, which are not taken apart.

    Its placeholders are the node's operands, in order of appearance in args and kwargs.
    """
    target = overload(node)
    table = {key: value for key, value in _table().items() if key not in rules}
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
    if not without_writes(traced.graph):
        return None
    if any(_same(inner, target) or _is_last(inner, rules) for inner in traced.graph.nodes):
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


def _is_last(node: Node, rules: Container[OpOverload]) -> bool:
    """Whether nothing can be made of a node: a primitive, which has no parts, without a rule."""
    target = node.target
    return isinstance(target, OpOverload) and target.namespace == "prims" and target not in rules


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
