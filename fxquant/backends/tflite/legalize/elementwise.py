"""Arithmetic of two operands, and elementary functions of one.

add(x, 0.5)        ->   add(x, @n0_5)          the number a constant on its own int8 grid
div(x, 4.0) int8   ->   mul(x, @n0_25)         there is no delegated int8 division
"""

from __future__ import annotations

from typing import Any

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.aten import aten

from .grids import float32, quantize_constant
from .registry import legalize
from .rewriter import NoIntegerForm, Rewriter, Unsupported
from .tables import by_table
from .values import Constant, Value

Operand = Value | complex


@legalize(aten.add.Tensor, aten.add.Scalar, quantized=True)
def add(r: Rewriter, x: Operand, y: Operand, alpha_: complex = 1, *, alpha: complex = 1) -> Value:
    """ADD; a factor `alpha` is folded into a constant, or multiplied in before."""
    alpha = alpha if alpha != 1 else alpha_
    if r.result_dtype == torch.bool:
        return r.emit(tfl.logical_or, *r.operands(x, y))
    if alpha == -1:
        return r.emit(tfl.sub, *r.operands(x, y), out=r.out)
    return r.emit(tfl.add, *r.operands(x, _times(r, y, alpha)), out=r.out)


@legalize(aten.sub.Tensor, aten.sub.Scalar, quantized=True)
def sub(r: Rewriter, x: Operand, y: Operand, alpha_: complex = 1, *, alpha: complex = 1) -> Value:
    """SUB."""
    alpha = alpha if alpha != 1 else alpha_
    return r.emit(tfl.sub, *r.operands(x, _times(r, y, alpha)), out=r.out)


@legalize(aten.rsub.Scalar, aten.rsub.Tensor, quantized=True)
def rsub(r: Rewriter, x: Value, y: Operand, alpha_: complex = 1, *, alpha: complex = 1) -> Value:
    """SUB with the operands exchanged."""
    alpha = alpha if alpha != 1 else alpha_
    return r.emit(tfl.sub, *r.operands(y, _times(r, x, alpha)), out=r.out)


def _times(r: Rewriter, x: Operand, factor: complex) -> Operand:
    if factor == 1:
        return x
    if not isinstance(x, torch.fx.Node | Constant):
        return x * factor
    if isinstance(x, Constant):
        return Constant(x.name, x.dequantize().data * factor)
    kind = r.qtype(x)
    if kind is None:
        return r.emit(
            tfl.mul, *r.operands(x, factor, dtype=torch.result_type(_empty(r, x), factor))
        )
    if isinstance(factor, complex) or factor <= 0:
        raise NoIntegerForm("its factor alpha is not positive")
    return r.emit(
        tfl.mul, *r.operands(x, factor), out=QType(kind.dtype, kind.scale * factor, kind.zero_point)
    )


def _empty(r: Rewriter, x: Value) -> torch.Tensor:
    return torch.empty(0, dtype=r.dtype(x))


@legalize(aten.mul.Tensor, aten.mul.Scalar, quantized=True)
def mul(r: Rewriter, x: Operand, y: Operand) -> Value:
    """MUL; of truth values LOGICAL_AND."""
    function = tfl.logical_and if r.result_dtype == torch.bool else tfl.mul
    return r.emit(function, *r.operands(x, y), out=r.out)


@legalize(aten.div.Tensor, aten.div.Scalar, quantized=True)
def div(r: Rewriter, x: Operand, y: Operand) -> Value:
    """DIV; with integers MUL by the reciprocal of a constant."""
    if r.out is None:
        return r.emit(tfl.div, *r.operands(x, y))
    if isinstance(y, torch.fx.Node):
        raise NoIntegerForm("DIV fails where the quantized divisor is 0")
    if isinstance(y, Constant):
        return r.emit(tfl.mul, *r.operands(x, Constant(y.name, 1 / y.dequantize().data)), out=r.out)
    return r.emit(tfl.mul, *r.operands(x, 1 / y), out=r.out)


@legalize(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(r: Rewriter, x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Value:
    """DIV and FLOOR, or DIV rounded toward zero."""
    if rounding_mode is None:
        return div(r, x, y)
    if not r.result_dtype.is_floating_point:
        return _integer_division(r, x, y, rounding_mode)
    if rounding_mode == "floor":
        return floor_divide(r, x, y)
    quotient = r.emit(tfl.div, *r.operands(x, y))
    return truncated(r, quotient)


def _integer_division(r: Rewriter, x: Operand, y: Operand, rounding_mode: str) -> Value:
    function = tfl.floor_div if rounding_mode == "floor" else tfl.div
    result = r.emit(function, *r.operands(x, y, dtype=torch.int32))
    return r.cast(result, r.result_dtype)


@legalize(aten.floor_divide.default, aten.floor_divide.Scalar)
def floor_divide(r: Rewriter, x: Operand, y: Operand) -> Value:
    """FLOOR_DIV for integers; for floats the exact quotient of x minus the remainder."""
    if not r.result_dtype.is_floating_point:
        return _integer_division(r, x, y, "floor")
    x, y = r.operands(x, y)
    remainder = r.emit(tfl.floor_mod, x, y)
    return r.emit(tfl.round, r.emit(tfl.div, r.emit(tfl.sub, x, remainder), y))


def truncated(r: Rewriter, x: Value) -> Value:
    """Rounded toward zero: sign(x) * floor(|x|)."""
    return r.emit(tfl.mul, r.emit(tfl.sign, x), r.emit(tfl.floor, r.emit(tfl.abs, x)))


@legalize(aten.trunc.default, aten.fix.default)
def trunc(r: Rewriter, x: Value) -> Value:
    """Rounded toward zero; integers are that already."""
    return truncated(r, x) if r.dtype(x).is_floating_point else x


@legalize(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor)
def remainder(r: Rewriter, x: Operand, y: Operand) -> Value:
    """FLOOR_MOD: the sign of the divisor, as torch.remainder."""
    dtype = r.result_dtype
    return r.cast(r.emit(tfl.floor_mod, *r.operands(x, y)), dtype)


@legalize(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(r: Rewriter, x: Operand, y: Operand) -> Value:
    """The sign of the dividend: sign(x) * (|x| mod |y|)."""
    x, y = r.operands(x, y)
    parts = r.emit(tfl.floor_mod, r.emit(tfl.abs, x), r.emit(tfl.abs, y))
    return r.emit(tfl.mul, r.emit(tfl.sign, x), parts)


@legalize(aten.maximum.default, aten.max.other, aten.clamp_min.Tensor, quantized=True)
def maximum(r: Rewriter, x: Operand, y: Operand) -> Value:
    """MAXIMUM, which compares raw integers: all on one grid."""
    return r.emit(tfl.maximum, *_on_one_grid(r, x, y))


@legalize(aten.minimum.default, aten.min.other, aten.clamp_max.Tensor, quantized=True)
def minimum(r: Rewriter, x: Operand, y: Operand) -> Value:
    """MINIMUM, as MAXIMUM."""
    return r.emit(tfl.minimum, *_on_one_grid(r, x, y))


def _on_one_grid(r: Rewriter, x: Operand, y: Operand) -> list[Value]:
    out = r.out
    if out is None:
        return r.operands(x, y)
    return [r.quantize(value, out) for value in r.operands(x, y)]


@legalize(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow(r: Rewriter, x: Operand, y: Operand) -> Value:
    """POW."""
    if r.result_dtype.is_floating_point:
        return r.emit(tfl.pow, *r.operands(x, y))
    return r.cast(r.emit(tfl.pow, *r.operands(x, y, dtype=torch.int32)), r.result_dtype)


ROOTS = {0.5: "sqrt", -0.5: "rsqrt"}


@legalize(aten.pow.Tensor_Scalar, quantized=True)
def pow_scalar(r: Rewriter, x: Value, exponent: float) -> Value:
    """Products, roots and reciprocals for the usual exponents, POW for the others."""
    if exponent == 2:
        return square(r, x)
    if r.out is not None:
        if not r.integer_only:
            raise NoIntegerForm("POW computes in float only")
        return by_table(r, x, lambda reals: reals**exponent)
    if not r.result_dtype.is_floating_point:
        return pow(r, x, exponent)
    (x,) = r.operands(x)
    if exponent == 3:
        return r.emit(tfl.mul, r.emit(tfl.mul, x, x), x)
    if exponent in ROOTS:
        return r.emit(getattr(tfl, ROOTS[exponent]), x)
    if exponent == 1:
        return x
    return reciprocal(r, x) if exponent == -1 else r.emit(tfl.pow, *r.operands(x, exponent))


@legalize(aten.square.default, quantized=True)
def square(r: Rewriter, x: Value) -> Value:
    """MUL with itself, which integers and the delegate know too."""
    return r.emit(tfl.mul, *r.operands(x, x), out=r.out)


@legalize(aten.reciprocal.default)
def reciprocal(r: Rewriter, x: Value) -> Value:
    """DIV of 1."""
    return r.emit(tfl.div, *r.operands(1, x))


@legalize(aten.atan2.default)
def atan2(r: Rewriter, x: Value, y: Value) -> Value:
    """ATAN2, which does not broadcast."""
    shape = r.broadcast_shape(x, y)
    return r.emit(tfl.atan2, *(r.broadcast(each, shape) for each in r.operands(x, y)))


@legalize(aten.neg.default, quantized=True)
def neg(r: Rewriter, x: Value) -> Value:
    """NEG; integers on a grid are multiplied by -1, for NEG negates raw values."""
    if r.out is not None:
        return r.emit(tfl.mul, *r.operands(x, -1.0), out=r.out)
    return r.emit(tfl.neg, x)


def _unary(function: str) -> Any:
    def rule(r: Rewriter, x: Value) -> Value:
        if not r.result_dtype.is_floating_point:
            return _on_int32(r, function, x)
        return r.emit(getattr(tfl, function), *r.operands(x))

    rule.__name__ = rule.__qualname__ = function
    rule.__doc__ = f"{function.upper()}."
    return rule


def _unary_quantized(function: str) -> Any:
    def rule(r: Rewriter, x: Value) -> Value:
        if not r.result_dtype.is_floating_point:
            return _on_int32(r, function, x)
        return r.emit(getattr(tfl, function), *r.operands(x), out=r.out)

    rule.__name__ = rule.__qualname__ = function
    rule.__doc__ = f"{function.upper()}, integers by a table of 256 entries."
    return rule


def _on_int32(r: Rewriter, function: str, x: Value) -> Value:
    """Integers: rounding leaves them, the others have kernels for int32 only."""
    if function in ("floor", "ceil", "round"):
        return x
    found = r.emit(getattr(tfl, function), r.cast(x, torch.int32))
    return r.cast(found, r.result_dtype)


FLOAT_FUNCTIONS = {
    aten.sin.default: "sin",
    aten.cos.default: "cos",
    aten.floor.default: "floor",
    aten.ceil.default: "ceil",
    aten.round.default: "round",
    aten.sign.default: "sign",
}
INTEGER_FUNCTIONS = {aten.exp.default: "exp", aten.abs.default: "abs"}

for _operator, _function in FLOAT_FUNCTIONS.items():
    legalize(_operator)(_unary(_function))
for _operator, _function in INTEGER_FUNCTIONS.items():
    legalize(_operator, quantized=True)(_unary_quantized(_function))


@legalize(aten.log.default, quantized=True)
def log(r: Rewriter, x: Value) -> Value:
    """LOG of 8 bits; it has no kernel for uint8, and a coarse one for 16 bits."""
    if r.out is None:
        return r.emit(tfl.log, *r.operands(x))
    if not r.integer_only:
        raise NoIntegerForm("LOG of integers is coarser than of floats")
    return r.emit(tfl.log, x, out=r.out) if r.out.dtype == "int8" else by_table(r, x, torch.log)


@legalize(aten.sqrt.default, quantized=True)
def sqrt(r: Rewriter, x: Value) -> Value:
    """SQRT; its integers are cut off, not rounded, so 8 bits are looked up instead."""
    if r.out is None:
        return r.emit(tfl.sqrt, *r.operands(x))
    if not r.integer_only:
        raise NoIntegerForm("SQRT cuts integers off instead of rounding them")
    if r.out.dtype != "int16":
        return by_table(r, x, torch.sqrt)
    return r.emit(tfl.sqrt, _ends_at(r, x, 0), out=r.out)


@legalize(aten.rsqrt.default, quantized=True)
def rsqrt(r: Rewriter, x: Value) -> Value:
    """RSQRT; its kernels refuse what is not positive, so integers are one step at the least."""
    if r.out is None:
        return r.emit(tfl.rsqrt, *r.operands(x))
    if not r.integer_only:
        raise NoIntegerForm("RSQRT fails where a quantized operand is 0")
    if r.out.dtype == "uint8":
        return by_table(r, x, torch.rsqrt)
    result: Value = r.emit(tfl.rsqrt, _ends_at(r, x, 1), out=r.out)
    for part in FINER if r.out.dtype == "int16" else ():
        result = _finer_rsqrt(r, x, part, result)
    return result


FINER = (16, 256)
"""Parts of the range of a 16-bit operand where RSQRT is read from a finer grid.

Its 256 samples above 0 lie even, and the first of them far apart on a curve as steep as that.
"""


def _finer_rsqrt(r: Rewriter, x: Value, part: int, coarse: Value) -> Value:
    """RSQRT of what is in the lowest part of the range, from a grid of that part."""
    kind = r.qtype(x)
    assert kind is not None
    grid = QType(kind.dtype, float32(kind.scale / part), kind.zero_point)
    fine = r.emit(tfl.rsqrt, _ends_at(r, r.quantize(x, grid), 1), out=r.out)
    # LESS of quantized values compares them in 1/256; plain integers it compares as they are.
    end = r.scalar(kind.zero_point + 32767 // part, torch.int32)
    is_low = r.emit(tfl.less, r.cast(x, torch.int32), end)
    return r.emit(tfl.select_v2, is_low, fine, coarse)


def _ends_at(r: Rewriter, x: Value, steps: int) -> Value:
    """A quantized value that is so many steps above zero at the least."""
    kind = r.qtype(x)
    if kind is None or kind.zero_point + steps > torch.iinfo(kind.torch_dtype).max:
        raise NoIntegerForm("its operand has no grid, or one without positive numbers")
    if kind.zero_point + steps == torch.iinfo(kind.torch_dtype).min:
        return x
    return r.emit(tfl.maximum, x, quantize_constant(r.scalar(kind.scale * steps), kind))


@legalize(aten.log2.default)
def log2(r: Rewriter, x: Value) -> Value:
    """LOG, scaled."""
    return r.emit(tfl.mul, r.emit(tfl.log, *r.operands(x)), r.scalar(1.4426950408889634))


@legalize(aten.log10.default)
def log10(r: Rewriter, x: Value) -> Value:
    """LOG, scaled."""
    return r.emit(tfl.mul, r.emit(tfl.log, *r.operands(x)), r.scalar(0.4342944819032518))


@legalize(aten.exp2.default)
def exp2(r: Rewriter, x: Value) -> Value:
    """EXP of x times ln 2."""
    return r.emit(tfl.exp, r.emit(tfl.mul, *r.operands(x, 0.6931471805599453)))


@legalize(aten.log1p.default)
def log1p(r: Rewriter, x: Value) -> Value:
    """log(u) * x / (u - 1) with u = 1 + x: exact for small x too, where u is 1 it is x."""
    (x,) = r.operands(x)
    one = r.scalar(1.0)
    u = r.emit(tfl.add, x, one)
    d = r.emit(tfl.sub, u, one)
    flat = r.emit(tfl.equal, d, r.scalar(0.0))
    safe = r.emit(tfl.select_v2, flat, r.broadcast(one, r.shape(x)), d)
    scaled = r.emit(tfl.mul, r.emit(tfl.log, u), r.emit(tfl.div, x, safe))
    return r.emit(tfl.select_v2, flat, x, scaled)


@legalize(aten.expm1.default)
def expm1(r: Rewriter, x: Value) -> Value:
    """2 * tanh(x/2) * e^x / (1 + tanh(x/2)) ... as tanh(x/2) * (e^x + 1): no cancellation."""
    (x,) = r.operands(x)
    half = r.emit(tfl.tanh, r.emit(tfl.mul, x, r.scalar(0.5)))
    return r.emit(tfl.mul, half, r.emit(tfl.add, r.emit(tfl.exp, x), r.scalar(1.0)))


@legalize(aten.tan.default)
def tan(r: Rewriter, x: Value) -> Value:
    """SIN over COS."""
    (x,) = r.operands(x)
    return r.emit(tfl.div, r.emit(tfl.sin, x), r.emit(tfl.cos, x))


@legalize(aten.erf.default)
def erf(r: Rewriter, x: Value) -> Value:
    """From GELU, whose exact form is x/2 * (1 + erf(x / sqrt 2)); no other operator has erf.

    erf(x) = gelu(z) * 2 / z - 1 at z = x * sqrt 2; below 0.1 the first terms of its series.
    """
    (x,) = r.operands(x)
    z = r.emit(tfl.mul, x, r.scalar(1.4142135623730951))
    small = r.emit(tfl.less, r.emit(tfl.abs, x), r.scalar(0.1))
    safe = r.emit(tfl.select_v2, small, r.broadcast(r.scalar(1.0), r.shape(x)), z)
    twice = r.emit(tfl.mul, r.emit(tfl.gelu, safe, approximate=False), r.scalar(2.0))
    far = r.emit(tfl.sub, r.emit(tfl.div, twice, safe), r.scalar(1.0))
    return r.emit(tfl.select_v2, small, _erf_series(r, x), far)


def _erf_series(r: Rewriter, x: Value) -> Value:
    """2 / sqrt pi * x * (1 - x^2/3 + x^4/10)."""
    squared = r.emit(tfl.mul, x, x)
    inner = r.emit(tfl.add, r.emit(tfl.mul, squared, r.scalar(0.1)), r.scalar(-1 / 3))
    factor = r.emit(tfl.add, r.emit(tfl.mul, inner, squared), r.scalar(1.0))
    return r.emit(tfl.mul, r.emit(tfl.mul, x, factor), r.scalar(1.1283791670955126))


@legalize(aten.isnan.default)
def isnan(r: Rewriter, x: Value) -> Value:
    """NOT_EQUAL to itself."""
    return r.emit(tfl.not_equal, x, x)


@legalize(aten.isinf.default)
def isinf(r: Rewriter, x: Value) -> Value:
    """EQUAL of the magnitude to infinity."""
    return r.emit(tfl.equal, r.emit(tfl.abs, x), r.scalar(float("inf")))


@legalize(aten.bitwise_not.default, aten.logical_not.default)
def logical_not(r: Rewriter, x: Value) -> Value:
    """LOGICAL_NOT; of integers -1 - x."""
    if r.result_dtype == torch.bool:
        return r.emit(tfl.logical_not, as_bool(r, x))
    return r.emit(tfl.sub, *r.operands(-1, x))


@legalize(aten.logical_and.default, aten.bitwise_and.Tensor, aten.__and__.Tensor)
def logical_and(r: Rewriter, x: Value, y: Value) -> Value:
    """LOGICAL_AND of truth values."""
    return r.emit(tfl.logical_and, *_truths(r, x, y))


@legalize(aten.logical_or.default, aten.bitwise_or.Tensor, aten.__or__.Tensor)
def logical_or(r: Rewriter, x: Value, y: Value) -> Value:
    """LOGICAL_OR of truth values."""
    return r.emit(tfl.logical_or, *_truths(r, x, y))


@legalize(aten.logical_xor.default, aten.bitwise_xor.Tensor, aten.__xor__.Tensor)
def logical_xor(r: Rewriter, x: Value, y: Value) -> Value:
    """NOT_EQUAL of truth values."""
    return r.emit(tfl.not_equal, *_truths(r, x, y))


def _truths(r: Rewriter, *values: Value) -> list[Value]:
    if r.result_dtype != torch.bool:
        raise Unsupported("bitwise operators on integers")
    return [as_bool(r, value) for value in values]


def as_bool(r: Rewriter, x: Value) -> Value:
    """Truth values: what is not zero."""
    if r.dtype(x) == torch.bool:
        return x
    return r.emit(tfl.not_equal, x, r.scalar(0, r.dtype(x)))
