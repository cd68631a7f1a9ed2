"""Which operand's name a result may take over, and which it may not.

x = relu(x)                  one value after another
x = x + y                    a sum goes on with what it adds to
out = attention(q, k, v)     made of several: a value of its own
mask = x.ne(0)               of another kind: a value of its own
q, k, v = qkv.unbind(0)      parts: values of their own
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import torch
from torch.fx import Node

from fxquant.ir.aten import packet_name

GOES_ON = frozenset(
    {
        "add",
        "sub",
        "mul",
        "div",
        "truediv",
        "true_divide",
        "iadd",
        "isub",
        "imul",
        "itruediv",
        "rsub",
        "multiply",
        "pow",
        "maximum",
        "minimum",
        "where",
        "masked_fill",
        "lerp",
        "addcmul",
        "setitem",
        "add_relu",
        "add_scalar",
        "sub_scalar",
        "mul_scalar",
        "div_scalar",
        "fake_quantize_per_tensor_affine",
        "fake_quantize_per_channel_affine",
        "copy",
        "clone",
    }
)
"""Functions of several values whose result takes the place of the first."""

MAKES_NEW = frozenset(
    {
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_tensor",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "arange",
        "size",
    }
)
"""Functions that only look at what kind of value they are given."""


def function_name(node: Node) -> str:
    """The function, method or operation of `FloatFunctional` that a node calls; empty for modules.

    Writes in place are called as what they compute.
    """
    if node.op == "call_module":
        return str(node.args[0]) if node.args and isinstance(node.args[0], str) else ""
    name = str(node.target) if node.op == "call_method" else packet_name(node.target)
    return name if name.startswith("__") else name.strip("_")


def predecessors(node: Node, values: Sequence[Node]) -> list[Node]:
    """The operands among `values` whose name a node's result may have, the likeliest first."""
    name = function_name(node)
    if name in MAKES_NEW or is_one_of_several(node) or not values:
        return []
    if not _alike(node, values[0]):
        return []
    if not name or name in GOES_ON:
        return list(values) if name else list(values[:1])
    return [] if len(set(values)) > 1 else list(values)


def is_one_of_several(node: Node) -> bool:
    """Whether it is a part of a value that is taken apart."""
    if node.target is not operator.getitem:
        return False
    source = node.args[0]
    assert isinstance(source, Node)
    return _parts(source.users) > 1


def _parts(users: Iterable[Node]) -> int:
    return sum(user.target is operator.getitem for user in users)


def _alike(node: Node, value: Node) -> bool:
    """Whether both hold numbers of one kind."""
    first, second = node.meta.get("val"), value.meta.get("val")
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return True
    return first.is_floating_point() == second.is_floating_point()
