"""Elementary functions that the format lacks, from those that it has, without cancellation.

asin(x)   ->   atan2(x, sqrt((1 - x) * (1 + x)))
sinh(x)   ->   (u + u / (u + 1)) / 2 with u = expm1(x)
"""

from __future__ import annotations

from typing import Any

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .elementwise import erf, expm1, log1p
from .registry import legalize
from .rewriter import Rewriter
from .values import Value


def _sum(r: Rewriter, x: Value, y: Value) -> Value:
    return r.emit(tfl.add, x, y)


def _product(r: Rewriter, x: Value, y: Value) -> Value:
    return r.emit(tfl.mul, x, y)


@legalize(aten.erfc.default)
def erfc(r: Rewriter, x: Value) -> Value:
    """1 - erf(x)."""
    return r.emit(tfl.sub, r.scalar(1.0), erf(r, x))


def _leg(r: Rewriter, x: Value) -> Value:
    """sqrt((1 - x) * (1 + x))."""
    one = r.scalar(1.0)
    return r.emit(tfl.sqrt, _product(r, r.emit(tfl.sub, one, x), _sum(r, one, x)))


@legalize(aten.asin.default)
def asin(r: Rewriter, x: Value) -> Value:
    """ATAN2 of the opposite and the adjacent side."""
    return r.emit(tfl.atan2, x, _leg(r, x))


@legalize(aten.acos.default)
def acos(r: Rewriter, x: Value) -> Value:
    """ATAN2 of the opposite and the adjacent side."""
    return r.emit(tfl.atan2, _leg(r, x), x)


@legalize(aten.atan.default)
def atan(r: Rewriter, x: Value) -> Value:
    """ATAN2 with 1."""
    return r.emit(tfl.atan2, x, r.broadcast(r.scalar(1.0), r.shape(x)))


@legalize(aten.sinh.default)
def sinh(r: Rewriter, x: Value) -> Value:
    """(u + u / (u + 1)) / 2 with u = e^x - 1."""
    u = expm1(r, x)
    both = _sum(r, u, r.emit(tfl.div, u, _sum(r, u, r.scalar(1.0))))
    return _product(r, both, r.scalar(0.5))


@legalize(aten.cosh.default)
def cosh(r: Rewriter, x: Value) -> Value:
    """The mean of e^x and e^-x."""
    both = _sum(r, r.emit(tfl.exp, x), r.emit(tfl.exp, r.emit(tfl.neg, x)))
    return _product(r, both, r.scalar(0.5))


@legalize(aten.asinh.default)
def asinh(r: Rewriter, x: Value) -> Value:
    """sign(x) * log1p(|x| + x^2 / (1 + sqrt(1 + x^2)))."""
    size, one = r.emit(tfl.abs, x), r.scalar(1.0)
    squared = _product(r, x, x)
    root = r.emit(tfl.sqrt, _sum(r, squared, one))
    inner = _sum(r, size, r.emit(tfl.div, squared, _sum(r, root, one)))
    return _product(r, r.emit(tfl.sign, x), log1p(r, inner))


@legalize(aten.acosh.default)
def acosh(r: Rewriter, x: Value) -> Value:
    """log1p(t + sqrt(t * (t + 2))) with t = x - 1."""
    t = r.emit(tfl.sub, x, r.scalar(1.0))
    root = r.emit(tfl.sqrt, _product(r, t, _sum(r, t, r.scalar(2.0))))
    return log1p(r, _sum(r, t, root))


@legalize(aten.atanh.default)
def atanh(r: Rewriter, x: Value) -> Value:
    """log1p(2x / (1 - x)) / 2."""
    ratio = r.emit(tfl.div, _product(r, x, r.scalar(2.0)), r.emit(tfl.sub, r.scalar(1.0), x))
    return _product(r, log1p(r, ratio), r.scalar(0.5))


@legalize(aten.hypot.default)
def hypot(r: Rewriter, x: Value, y: Value) -> Value:
    """The root of the sum of squares."""
    return r.emit(tfl.sqrt, _sum(r, _product(r, x, x), _product(r, y, y)))


@legalize(aten.signbit.default)
def signbit(r: Rewriter, x: Value) -> Value:
    """Below zero, or so is the reciprocal: minus zero."""
    zero = r.scalar(0.0)
    inverse = r.emit(tfl.div, r.scalar(1.0), x)
    return r.emit(tfl.logical_or, r.emit(tfl.less, x, zero), r.emit(tfl.less, inverse, zero))


@legalize(aten.fmax.default)
def fmax(r: Rewriter, x: Value, y: Value) -> Value:
    """MAXIMUM gives its second operand where one is NaN; then x is wanted if y is the NaN."""
    return _without_nan(r, tfl.maximum, x, y)


@legalize(aten.fmin.default)
def fmin(r: Rewriter, x: Value, y: Value) -> Value:
    """As `fmax`."""
    return _without_nan(r, tfl.minimum, x, y)


def _without_nan(r: Rewriter, function: Any, x: Value, y: Value) -> Value:
    return r.emit(tfl.select_v2, r.emit(tfl.not_equal, y, y), x, r.emit(function, x, y))


@legalize(aten.round.decimals)
def round_decimals(r: Rewriter, x: Value, *, decimals: int = 0) -> Value:
    """ROUND of the scaled value."""
    scale = r.scalar(10.0**decimals)
    return r.emit(tfl.div, r.emit(tfl.round, _product(r, x, scale)), scale)


@legalize(aten.rrelu.default)
def rrelu(
    r: Rewriter, x: Value, lower: float = 1 / 8, upper: float = 1 / 3, *_: object, **__: object
) -> Value:
    """LEAKY_RELU with the mean slope, as in eval."""
    return r.emit(tfl.leaky_relu, x, alpha=(lower + upper) / 2)


@legalize(aten.cosine_similarity.default)
def cosine_similarity(r: Rewriter, x: Value, y: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    """The product of the two, each divided by its own norm."""
    shape = r.broadcast_shape(x, y)
    axis = (dim % len(shape),)
    x, y = (r.with_rank(value, len(shape)) for value in (x, y))
    floor = r.scalar(eps)

    def norm(value: Value) -> Value:
        squares = r.emit(tfl.sum, _product(r, value, value), axis=axis, keep_dims=True)
        return r.emit(tfl.maximum, r.emit(tfl.sqrt, squares), floor)

    directions = (r.emit(tfl.div, value, norm(value)) for value in (x, y))
    return r.emit(tfl.sum, _product(r, *directions), axis=axis, keep_dims=False)


@legalize(aten._cdist_forward.default)
def cdist(r: Rewriter, x: Value, y: Value, p: float, mode: int | None = None) -> Value:
    """The norm of all differences."""
    from .reductions import vector_norm

    rank = len(r.shape(x))
    left = r.reshape(x, (*r.shape(x)[:-1], 1, r.shape(x)[-1]))
    right = r.reshape(y, (*r.shape(y)[:-2], 1, *r.shape(y)[-2:]))
    return vector_norm(r, r.emit(tfl.sub, left, right), p, (rank,))


@legalize(aten._trilinear.default)
def trilinear(
    r: Rewriter,
    x: Value,
    y: Value,
    z: Value,
    expand_x: list[int],
    expand_y: list[int],
    expand_z: list[int],
    summed: list[int],
    unroll: int = 1,
) -> Value:
    """A product of three, broadcast and summed."""
    values = [
        _expanded(r, value, axes) for value, axes in ((x, expand_x), (y, expand_y), (z, expand_z))
    ]
    whole = _product(r, _product(r, values[0], values[2]), values[1])
    return r.emit(tfl.sum, whole, axis=tuple(summed), keep_dims=False)


def _expanded(r: Rewriter, x: Value, axes: list[int]) -> Value:
    shape = list(r.shape(x))
    for axis in sorted(axes):
        shape.insert(axis, 1)
    return r.reshape(x, shape)
