"""The public name of a torch function, as code: `F.relu`, `torch.flatten`, `torch.ops.…`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx.node import _get_qualified_name

# Where a function is looked for, the nicer names first.
HOMES: Mapping[str, ModuleType] = {
    "torch": torch,
    "F": F,
    "torch.special": torch.special,
    "torch.linalg": torch.linalg,
    "torch.fft": torch.fft,
}
BINARY: Mapping[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.matmul: "@",
    operator.and_: "&",
    operator.or_: "|",
    operator.xor: "^",
    operator.lshift: "<<",
    operator.rshift: ">>",
    operator.lt: "<",
    operator.le: "<=",
    operator.eq: "==",
    operator.ne: "!=",
    operator.gt: ">",
    operator.ge: ">=",
}
UNARY: Mapping[Any, str] = {operator.neg: "-", operator.invert: "~", operator.pos: "+"}
# What the operators of Python are recorded as.
METHODS: Mapping[str, str] = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "matmul": "@",
    "pow": "**",
}
# Written to the left side: `x += y` calls the method and binds its result, which is x.
IN_PLACE: Mapping[str, str] = {"add_": "+=", "sub_": "-=", "mul_": "*=", "div_": "/="}


@functools.cache
def _public() -> dict[int, str]:
    names: dict[int, str] = {}
    for home, module in HOMES.items():
        for name in sorted(vars(module)):
            value = getattr(module, name)
            if callable(value) and not name.startswith("_") and not isinstance(value, type):
                names.setdefault(id(value), f"{home}.{name}")
    for name in ("linear", "gelu", "pad", "scaled_dot_product_attention", "one_hot"):
        names[id(getattr(F, name))] = f"F.{name}"
    return names


def function_code(target: Any) -> str | None:
    """How a function is called in code; None for one that neither torch nor Python offers.

    >>> function_code(torch._C._nn.gelu), function_code(torch.ops.aten.relu.default)
    ('F.gelu', 'aten.relu.default')
    """
    if isinstance(target, OpOverload | OpOverloadPacket):
        name = str(target).replace("::", ".")
        return name if name.startswith("aten.") else f"torch.ops.{name}"
    known = _public().get(id(target))
    if known is not None:
        return known
    try:
        name = _get_qualified_name(target)
    except (RuntimeError, AttributeError):
        return None
    return name if name.startswith("torch.") and _found(name) is target else None


def _found(name: str) -> Any:
    value: Any = torch
    for part in name.split(".")[1:]:
        value = getattr(value, part, None)
    return value
