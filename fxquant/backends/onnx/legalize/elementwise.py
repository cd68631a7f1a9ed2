"""Rules of operators on one element at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import elementwise as ops
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Number, Rewriter, Unsupported

Operand = Value | Number

UNARY: dict[OpOverload, Callable[..., Any]] = {
    aten.abs.default: ops.abs,
    aten.neg.default: ops.neg,
    aten.exp.default: ops.exp,
    aten.log.default: ops.log,
    aten.sqrt.default: ops.sqrt,
    aten.reciprocal.default: ops.reciprocal,
    aten.floor.default: ops.floor,
    aten.ceil.default: ops.ceil,
    aten.round.default: ops.round,
    aten.sign.default: ops.sign,
    aten.sin.default: ops.sin,
    aten.cos.default: ops.cos,
    aten.tan.default: ops.tan,
    aten.asin.default: ops.asin,
    aten.acos.default: ops.acos,
    aten.atan.default: ops.atan,
    aten.sinh.default: ops.sinh,
    aten.cosh.default: ops.cosh,
    aten.asinh.default: ops.asinh,
    aten.acosh.default: ops.acosh,
    aten.atanh.default: ops.atanh,
    aten.erf.default: ops.erf,
}
COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": ops.equal,
    "lt": ops.less,
    "le": ops.less_or_equal,
    "gt": ops.greater,
    "ge": ops.greater_or_equal,
}
FACTORS: dict[OpOverload, float] = {
    aten.log2.default: 1 / math.log(2),
    aten.log10.default: 1 / math.log(10),
}


def _unary(function: Callable[..., Any]) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value) -> Value:
        return r.emit(function, *r.operands(x))

    return rule


for _operator, _function in UNARY.items():
    legalize(_operator)(_unary(_function))


@legalize(aten.rsqrt.default)
def rsqrt(r: Rewriter, x: Value) -> Value:
    """Sqrt, then Reciprocal."""
    return r.emit(ops.reciprocal, r.emit(ops.sqrt, *r.operands(x)))


def _scaled_log(factor: float) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value) -> Value:
        return r.emit(ops.mul, r.emit(ops.log, *r.operands(x)), factor)

    return rule


for _operator, _number in FACTORS.items():
    legalize(_operator)(_scaled_log(_number))


@legalize(aten.exp2.default)
def exp2(r: Rewriter, x: Value) -> Value:
    """Pow of 2."""
    return r.emit(ops.exp, r.emit(ops.mul, *r.operands(x), math.log(2)))


@legalize(aten.expm1.default)
def expm1(r: Rewriter, x: Value) -> Value:
    """Exp, less one."""
    return r.emit(ops.sub, r.emit(ops.exp, *r.operands(x)), 1.0)


@legalize(aten.log1p.default)
def log1p(r: Rewriter, x: Value) -> Value:
    """Log of one more."""
    return r.emit(ops.log, r.emit(ops.add, *r.operands(x), 1.0))


@legalize(aten.trunc.default)
def trunc(r: Rewriter, x: Value) -> Value:
    """Floor of the magnitude with the sign."""
    return r.emit(ops.mul, r.emit(ops.sign, x), r.emit(ops.floor, r.emit(ops.abs, x)))


@legalize(aten.isnan.default)
def isnan(r: Rewriter, x: Value) -> Value:
    """IsNaN."""
    return r.emit(ops.isnan, r.cast(x, torch.float32))


@legalize(aten.isinf.default)
def isinf(r: Rewriter, x: Value) -> Value:
    """IsInf."""
    return r.emit(ops.isinf, r.cast(x, torch.float32))


# -- arithmetic --------------------------------------------------------------------------------


def _factor(r: Rewriter, value: Operand, alpha: Number) -> Operand:
    if alpha == 1:
        return value
    if isinstance(value, int | float):
        return value * alpha
    return r.emit(ops.mul, value, *r.operands(alpha))


@legalize(aten.add.Tensor, aten.add.Scalar)
def add(r: Rewriter, x: Value, y: Operand, alpha: Number = 1) -> Value:
    """Add."""
    a, b = r.operands(x, y)
    if r.result_dtype == torch.bool:
        return r.emit(ops.logical_or, a, b)
    return r.emit(ops.add, a, _factor(r, b, alpha))


@legalize(aten.sub.Tensor, aten.sub.Scalar)
def sub(r: Rewriter, x: Value, y: Operand, alpha: Number = 1) -> Value:
    """Sub."""
    a, b = r.operands(x, y)
    return r.emit(ops.sub, a, _factor(r, b, alpha))


@legalize(aten.rsub.Scalar, aten.rsub.Tensor)
def rsub(r: Rewriter, x: Value, y: Operand, alpha: Number = 1) -> Value:
    """Sub, the other way around."""
    a, b = r.operands(x, y)
    return r.emit(ops.sub, b, _factor(r, a, alpha))


@legalize(aten.mul.Tensor, aten.mul.Scalar)
def mul(r: Rewriter, x: Value, y: Operand) -> Value:
    """Mul."""
    function = ops.logical_and if r.result_dtype == torch.bool else ops.mul
    return r.emit(function, *r.operands(x, y))


@legalize(aten.div.Tensor, aten.div.Scalar)
def div(r: Rewriter, x: Value, y: Operand) -> Value:
    """Div of reals."""
    return r.emit(ops.div, *r.operands(x, y))


@legalize(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(r: Rewriter, x: Value, y: Operand, *, rounding_mode: str | None = None) -> Value:
    """Div, rounded."""
    a, b = r.operands(x, y)
    if r.result_dtype.is_floating_point:
        quotient = r.emit(ops.div, a, b)
        if rounding_mode is None:
            return quotient
        return r.emit(ops.floor, quotient) if rounding_mode == "floor" else trunc(r, quotient)
    if rounding_mode == "trunc":
        return r.emit(ops.div, a, b)
    rest = r.emit(ops.mod, a, b)
    return r.emit(ops.div, r.emit(ops.sub, a, rest), b)


@legalize(aten.remainder.Tensor, aten.remainder.Scalar)
def remainder(r: Rewriter, x: Value, y: Operand) -> Value:
    """Mod for integers; for reals what the floor of the quotient leaves."""
    a, b = r.operands(x, y)
    if not r.result_dtype.is_floating_point:
        return r.emit(ops.mod, a, b)
    whole = r.emit(ops.floor, r.emit(ops.div, a, b))
    return r.emit(ops.sub, a, r.emit(ops.mul, whole, b))


@legalize(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(r: Rewriter, x: Value, y: Operand) -> Value:
    """Mod with the sign of the dividend."""
    return r.emit(ops.mod, *r.operands(x, y), fmod=1)


@legalize(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor)
def power(r: Rewriter, x: Value, y: Operand) -> Value:
    """Pow; small exponents are products and roots, which are faster and exact."""
    if not isinstance(y, int | float):
        return r.emit(ops.pow, *r.operands(x, y))
    (a,) = r.operands(x)
    if y == 2:
        return r.emit(ops.mul, a, a)
    if y == 0.5:
        return r.emit(ops.sqrt, a)
    return r.emit(ops.pow, a, *r.operands(y))


@legalize(aten.pow.Scalar)
def power_of_number(r: Rewriter, x: Number, y: Value) -> Value:
    """Pow of a number."""
    dtype = r.result_dtype
    return r.emit(ops.pow, r.constant(torch.tensor(x, dtype=dtype), "base"), r.cast(y, dtype))


@legalize(aten.maximum.default)
def maximum(r: Rewriter, x: Value, y: Value) -> Value:
    """Max."""
    return r.emit(ops.maximum, r.operands(x, y))


@legalize(aten.minimum.default)
def minimum(r: Rewriter, x: Value, y: Value) -> Value:
    """Min."""
    return r.emit(ops.minimum, r.operands(x, y))


@legalize(aten.clamp.default)
def clamp(r: Rewriter, x: Value, low: Number | None = None, high: Number | None = None) -> Value:
    """Clip."""
    bounds = [None if each is None else r.operands(each)[0] for each in (low, high)]
    return r.emit(ops.clip, *r.operands(x), *bounds)


@legalize(aten.clamp_min.default)
def clamp_min(r: Rewriter, x: Value, low: Number) -> Value:
    """Clip from below."""
    return clamp(r, x, low)


@legalize(aten.clamp_max.default)
def clamp_max(r: Rewriter, x: Value, high: Number) -> Value:
    """Clip from above."""
    return clamp(r, x, None, high)


@legalize(aten.clamp.Tensor)
def clamp_tensor(
    r: Rewriter, x: Value, low: Value | None = None, high: Value | None = None
) -> Value:
    """Max, then Min."""
    (found,) = r.operands(x)
    if low is not None:
        found = r.emit(ops.maximum, [found, *r.operands(low)])
    if high is not None:
        found = r.emit(ops.minimum, [found, *r.operands(high)])
    assert not isinstance(found, int | float)
    return found


# -- comparison and logic ------------------------------------------------------------------------


def _comparison(function: Callable[..., Any]) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value, y: Operand) -> Value:
        return r.emit(function, *_comparable(r, x, y))

    return rule


def _comparable(r: Rewriter, x: Value, y: Operand) -> list[Operand]:
    dtype = r.promoted(x, y)
    if dtype == torch.bool:
        dtype = torch.int32  # only Equal takes bool
    return r.operands(x, y, dtype=dtype)


for _name, _compare in COMPARISONS.items():
    packet = getattr(aten, _name)
    legalize(packet.Tensor, packet.Scalar)(_comparison(_compare))


@legalize(aten.ne.Tensor, aten.ne.Scalar)
def not_equal(r: Rewriter, x: Value, y: Operand) -> Value:
    """Not of Equal."""
    return r.emit(ops.logical_not, r.emit(ops.equal, *_comparable(r, x, y)))


def _logic(function: Callable[..., Any]) -> Callable[..., Value]:
    def rule(r: Rewriter, *values: Value) -> Value:
        return r.emit(function, *(truth(r, value) for value in values))

    return rule


def truth(r: Rewriter, value: Value) -> Value:
    """Whether each element is not zero."""
    return r.cast(value, torch.bool)


LOGIC: dict[str, tuple[Callable[..., Any], str]] = {
    "logical_and": (ops.logical_and, "default"),
    "logical_or": (ops.logical_or, "default"),
    "logical_xor": (ops.logical_xor, "default"),
    "logical_not": (ops.logical_not, "default"),
}
for _name, (_connective, _overload) in LOGIC.items():
    legalize(getattr(getattr(aten, _name), _overload))(_logic(_connective))


def _bitwise(function: Callable[..., Any]) -> Callable[..., Value]:
    def rule(r: Rewriter, *values: Value) -> Value:
        if any(r.dtype(value) != torch.bool for value in values):
            raise Unsupported("bits of integers have no operator")
        return r.emit(function, *values)

    return rule


for _name, _connective in (
    ("bitwise_and", ops.logical_and),
    ("bitwise_or", ops.logical_or),
    ("bitwise_xor", ops.logical_xor),
):
    legalize(getattr(aten, _name).Tensor)(_bitwise(_connective))
legalize(aten.bitwise_not.default)(_bitwise(ops.logical_not))


@legalize(aten.where.self)
def where(r: Rewriter, condition: Value, x: Value, y: Value) -> Value:
    """Where."""
    return r.emit(ops.where, truth(r, condition), *r.operands(x, y))


@legalize(aten.masked_fill.Scalar)
def masked_fill(r: Rewriter, x: Value, mask: Value, value: Number) -> Value:
    """Where, with a number."""
    filled = r.constant(torch.tensor(value, dtype=r.result_dtype), "value")
    return r.emit(ops.where, truth(r, mask), filled, x)


@legalize(aten.masked_fill.Tensor)
def masked_fill_tensor(r: Rewriter, x: Value, mask: Value, value: Value) -> Value:
    """Where, with a tensor of one element."""
    return r.emit(ops.where, truth(r, mask), *r.operands(value, x))


# -- dtypes --------------------------------------------------------------------------------------


@legalize(aten._to_copy.default)
def to_copy(r: Rewriter, x: Value, *, dtype: torch.dtype | None = None, **_: object) -> Value:
    """Cast."""
    return x if dtype is None else r.cast(x, dtype)


@legalize(torch.ops.prims.convert_element_type.default)
def convert_element_type(r: Rewriter, x: Value, dtype: torch.dtype) -> Value:
    """Cast."""
    return r.cast(x, dtype)
