"""Facts about ATen operators, read from their published schemas."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

aten = torch.ops.aten


def is_aten(node: Node) -> bool:
    """Whether a node calls an ATen operator."""
    return node.op == "call_function" and isinstance(node.target, OpOverload)


def overload(node: Node) -> OpOverload:
    """The operator that a node calls; only for nodes of which `is_aten` is true."""
    assert isinstance(node.target, OpOverload)
    return node.target


def packet_name(target: object) -> str:
    """The operator's name without namespace and overload.

    >>> packet_name(torch.ops.aten.conv2d.default)
    'conv2d'
    """
    if isinstance(target, OpOverload):
        return str(target._schema.name).partition("::")[2]
    return str(getattr(target, "__name__", target))


@cache
def argument_names(target: OpOverload) -> tuple[str, ...]:
    """The names of an operator's arguments, in order.

    >>> argument_names(torch.ops.aten.relu.default)
    ('self',)
    """
    return tuple(argument.name for argument in target._schema.arguments)


@cache
def defaults(target: OpOverload) -> dict[str, Any]:
    """The default of every argument that has one."""
    arguments = target._schema.arguments
    return {a.name: a.default_value for a in arguments if a.has_default_value()}


def named_arguments(node: Node) -> dict[str, Any]:
    """Every argument of an ATen node by name, defaults filled in."""
    target = overload(node)
    named = dict(zip(argument_names(target), node.args, strict=False))
    return {**defaults(target), **named, **node.kwargs}
