"""Two-operand arithmetic, with broadcasting.

add(x, y)  int8: both rescaled to a common scale with 20 spare bits, then to the result's
mul(x, y)  int8: one rescaling of the product
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..kernels.arithmetic import add_integers, mul_integers, squared_difference_integers
from .convolution import clamp_activation
from .values import QTensor, QType, Value, data_of, needs_out, operator, real_of


def _float(
    function: Callable[[Tensor, Tensor], Tensor], x: Value, y: Value, activation: str
) -> Tensor:
    return clamp_activation(function(real_of(x), real_of(y)), activation)


@operator()
def add(
    x: Value,
    y: Value,
    *,
    fused_activation_function: str = "NONE",
    out: QType | None = None,
) -> Value:
    """ADD."""
    if isinstance(x, QTensor) and isinstance(y, QTensor):
        return add_integers(x, y, needs_out(out, "add"), fused_activation_function, sign=1)
    return _float(torch.add, x, y, fused_activation_function)


@operator()
def sub(
    x: Value,
    y: Value,
    *,
    fused_activation_function: str = "NONE",
    out: QType | None = None,
) -> Value:
    """SUB."""
    if isinstance(x, QTensor) and isinstance(y, QTensor):
        return add_integers(x, y, needs_out(out, "sub"), fused_activation_function, sign=-1)
    return _float(torch.sub, x, y, fused_activation_function)


@operator()
def mul(
    x: Value,
    y: Value,
    *,
    fused_activation_function: str = "NONE",
    out: QType | None = None,
) -> Value:
    """MUL."""
    if isinstance(x, QTensor) and isinstance(y, QTensor):
        return mul_integers(x, y, needs_out(out, "mul"), fused_activation_function)
    return _float(torch.mul, x, y, fused_activation_function)


@operator()
def div(x: Tensor, y: Tensor, *, fused_activation_function: str = "NONE") -> Tensor:
    """DIV; integers truncate."""
    if not x.dtype.is_floating_point:
        return torch.div(x, y, rounding_mode="trunc")
    return _float(torch.div, x, y, fused_activation_function)


@operator()
def squared_difference(x: Value, y: Value, *, out: QType | None = None) -> Value:
    """SQUARED_DIFFERENCE: (x - y)**2."""
    if isinstance(x, QTensor) and isinstance(y, QTensor):
        return squared_difference_integers(x, y, needs_out(out, "squared_difference"))
    difference = real_of(x) - real_of(y)
    return difference * difference


def _same_scale(function: Callable[[Tensor, Tensor], Tensor], x: Value, y: Value) -> Value:
    """Raw integers compared: both operands have the result's scale."""
    result = function(data_of(x), data_of(y))
    return x.with_values(result) if isinstance(x, QTensor) else result


@operator(keeps=True)
def maximum(x: Value, y: Value) -> Value:
    """MAXIMUM; quantized operands must share their scale."""
    return _same_scale(lambda a, b: torch.where(a > b, a, b), x, y)


@operator(keeps=True)
def minimum(x: Value, y: Value) -> Value:
    """MINIMUM; quantized operands must share their scale."""
    return _same_scale(lambda a, b: torch.where(a < b, a, b), x, y)


@operator()
def pow(x: Tensor, y: Tensor) -> Tensor:
    """POW."""
    return torch.pow(x, y)


@operator()
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """FLOOR_DIV: rounds toward minus infinity."""
    return torch.floor(x / y) if x.dtype.is_floating_point else torch.floor_divide(x, y)


@operator()
def floor_mod(x: Tensor, y: Tensor) -> Tensor:
    """FLOOR_MOD: the result has the divisor's sign."""
    return torch.remainder(x, y)


@operator()
def atan2(x: Tensor, y: Tensor) -> Tensor:
    """ATAN2 of equal shapes."""
    return torch.atan2(x, y)
