"""Elementary functions of one operand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fxquant.errors import InvalidGraph

from ..kernels.interpolation import interpolated, with_pole
from ..kernels.lookup import by_table, table_lookup, truncated_sqrt
from ..kernels.rectify import abs_integers
from ..kernels.rsqrt import rsqrt_integers
from .values import QTensor, QType, Value, data_of, needs_out, operator


def _function(
    x: Value,
    function: Callable[[Tensor], Tensor],
    out: QType | None,
    name: str,
    at_zero: float | None = None,
) -> Value:
    """`at_zero`: the infinity to which the function goes there."""
    if not isinstance(x, QTensor):
        return function(x)
    target = needs_out(out, name)
    if x.dtype != torch.int16:
        return table_lookup(x, function, target)
    whole = function if at_zero is None else with_pole(function, target, at_zero)
    return interpolated(x, whole, target)


@operator()
def exp(x: Value, *, out: QType | None = None) -> Value:
    """EXP."""
    return _function(x, torch.exp, out, "exp")


@operator()
def log(x: Value, *, out: QType | None = None) -> Value:
    """LOG; integers that stand for 0 or less give the least result."""
    return _function(x, torch.log, out, "log", at_zero=-math.inf)


@operator()
def sqrt(x: Value, *, out: QType | None = None) -> Value:
    """SQRT; integer results are cut off, not rounded."""
    if isinstance(x, QTensor):
        return truncated_sqrt(x, needs_out(out, "sqrt"))
    return torch.sqrt(x)


@operator()
def rsqrt(x: Value, *, out: QType | None = None) -> Value:
    """RSQRT; 8-bit integers in fixed point."""
    if isinstance(x, QTensor) and x.dtype != torch.int16:
        return rsqrt_integers(x, needs_out(out, "rsqrt"))
    return _function(x, torch.rsqrt, out, "rsqrt", at_zero=math.inf)


@operator()
def square(x: Tensor) -> Tensor:
    """SQUARE."""
    return x * x


@operator()
def abs(x: Value, *, out: QType | None = None) -> Value:
    """ABS."""
    if isinstance(x, QTensor):
        target = needs_out(out, "abs")
        return by_table(lambda data: abs_integers(data, target), x)
    return torch.abs(x)


@operator(keeps=True)
def neg(x: Value) -> Value:
    """NEG; raw integers where x is quantized, so its zero point must be 0."""
    if isinstance(x, QTensor) and x.offset:
        raise InvalidGraph(f"neg of {x.type}: the kernel negates raw values, so zero point 0 only")
    result = -data_of(x)
    return x.with_values(result) if isinstance(x, QTensor) else result


@operator()
def sign(x: Tensor) -> Tensor:
    """SIGN."""
    return torch.sign(x)


@operator()
def sin(x: Tensor) -> Tensor:
    """SIN."""
    return torch.sin(x)


@operator()
def cos(x: Tensor) -> Tensor:
    """COS."""
    return torch.cos(x)


@operator()
def floor(x: Tensor) -> Tensor:
    """FLOOR."""
    return torch.floor(x)


@operator()
def ceil(x: Tensor) -> Tensor:
    """CEIL."""
    return torch.ceil(x)


@operator()
def round(x: Tensor) -> Tensor:
    """ROUND: half to even."""
    return torch.round(x)
