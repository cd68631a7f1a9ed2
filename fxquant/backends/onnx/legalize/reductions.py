"""Rules of reductions and orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import elementwise, reductions
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Number, Rewriter, Unsupported

Axes = Sequence[int] | int | None


def axes_of(r: Rewriter, x: Value, dim: Axes) -> tuple[int, ...]:
    """The axes that are reduced; all of them where none is named."""
    rank = r.rank(x)
    if dim is None or (not isinstance(dim, int) and not dim):
        return tuple(range(rank))
    return tuple(axis % rank for axis in ((dim,) if isinstance(dim, int) else dim))


def reduced(r: Rewriter, function: Callable[..., Any], x: Value, dim: Axes, keepdim: bool) -> Value:
    """One reduction; a scalar has nothing to reduce."""
    if r.rank(x) == 0:
        return x
    return r.emit(function, x, axes_of(r, x, dim), keepdims=int(keepdim))


def _reduction(function: Callable[..., Any]) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value, dim: Axes = None, keepdim: bool = False, **_: object) -> Value:
        return reduced(r, function, r.cast(x, r.result_dtype), dim, keepdim)

    return rule


legalize(aten.mean.default, aten.mean.dim)(_reduction(reductions.reduce_mean))
legalize(aten.sum.default, aten.sum.dim_IntList)(_reduction(reductions.reduce_sum))
legalize(aten.prod.default, aten.prod.dim_int)(_reduction(reductions.reduce_prod))
legalize(aten.amax.default, aten.max.default)(_reduction(reductions.reduce_max))
legalize(aten.amin.default, aten.min.default)(_reduction(reductions.reduce_min))
legalize(aten.logsumexp.default)(_reduction(reductions.reduce_log_sum_exp))


def _extreme(arg: Callable[..., Any], reduce: Callable[..., Any]) -> Callable[..., Any]:
    def rule(r: Rewriter, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
        values = reduced(r, reduce, x, dim, keepdim)
        return values, r.emit(arg, x, axis=dim, keepdims=int(keepdim))

    return rule


legalize(aten.max.dim)(_extreme(reductions.arg_max, reductions.reduce_max))
legalize(aten.min.dim)(_extreme(reductions.arg_min, reductions.reduce_min))


def _position(function: Callable[..., Any]) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        if dim is None:
            found = r.emit(function, r.reshape(x, (-1,)), axis=0, keepdims=0)
            return r.reshape(found, r.result_shape)
        return r.emit(function, x, axis=dim, keepdims=int(keepdim))

    return rule


legalize(aten.argmax.default)(_position(reductions.arg_max))
legalize(aten.argmin.default)(_position(reductions.arg_min))


def _truths(function: Callable[..., Any]) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value, dim: Axes = None, keepdim: bool = False) -> Value:
        numbers = r.cast(r.cast(x, torch.bool), torch.int32)
        return r.cast(reduced(r, function, numbers, dim, keepdim), torch.bool)

    return rule


legalize(aten.any.default, aten.any.dim, aten.any.dims)(_truths(reductions.reduce_max))
legalize(aten.all.default, aten.all.dim, aten.all.dims)(_truths(reductions.reduce_min))

NORMS: dict[float, Callable[..., Any]] = {1.0: reductions.reduce_l1, 2.0: reductions.reduce_l2}


@legalize(aten.linalg_vector_norm.default)
def vector_norm(
    r: Rewriter,
    x: Value,
    order: Number = 2,
    dim: Axes = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    """ReduceL1 and ReduceL2; the largest or smallest magnitude."""
    x = r.cast(x, r.result_dtype)
    if float(order) in NORMS:
        return reduced(r, NORMS[float(order)], x, dim, keepdim)
    if abs(order) != float("inf"):
        raise Unsupported(f"a norm of order {order}")
    extreme = reductions.reduce_max if order > 0 else reductions.reduce_min
    return reduced(r, extreme, r.emit(elementwise.abs, x), dim, keepdim)


def _variance(r: Rewriter, x: Value, dim: Axes, correction: Number | None, keepdim: bool) -> Any:
    axes = axes_of(r, x, dim)
    count = 1
    for axis in axes:
        count *= r.shape(x)[axis]
    mean = r.emit(reductions.reduce_mean, x, axes)
    centered = r.emit(elementwise.sub, x, mean)
    squares = r.emit(elementwise.mul, centered, centered)
    total = r.emit(reductions.reduce_sum, squares, axes, keepdims=int(keepdim))
    divisor = max(count - (1 if correction is None else correction), 0)
    shape = r.shape(total)
    return r.emit(elementwise.div, total, float(divisor)), r.reshape(mean, shape)


@legalize(aten.var.correction)
def var(
    r: Rewriter,
    x: Value,
    dim: Axes = None,
    *,
    correction: Number | None = None,
    keepdim: bool = False,
) -> Value:
    """The mean of squared distances."""
    found: Value = _variance(r, x, dim, correction, keepdim)[0]
    return found


@legalize(aten.std.correction)
def std(
    r: Rewriter,
    x: Value,
    dim: Axes = None,
    *,
    correction: Number | None = None,
    keepdim: bool = False,
) -> Value:
    """The root of the variance."""
    return r.emit(elementwise.sqrt, _variance(r, x, dim, correction, keepdim)[0])


@legalize(aten.var_mean.correction)
def var_mean(
    r: Rewriter,
    x: Value,
    dim: Axes = None,
    *,
    correction: Number | None = None,
    keepdim: bool = False,
) -> tuple[Value, Value]:
    """Variance and mean."""
    variance, mean = _variance(r, x, dim, correction, keepdim)
    return variance, mean


@legalize(aten.topk.default)
def topk(
    r: Rewriter, x: Value, k: int, dim: int = -1, largest: bool = True, ordered: bool = True
) -> tuple[Value, ...]:
    """TopK."""
    options = {"largest": int(largest), "sorted": int(ordered)}
    return r.emit_several(reductions.top_k, x, (k,), axis=dim, **options)


@legalize(aten.sort.default)
def sort(r: Rewriter, x: Value, dim: int = -1, descending: bool = False) -> tuple[Value, ...]:
    """TopK of everything."""
    return topk(r, x, r.shape(x)[dim], dim, descending)


@legalize(aten.argsort.default)
def argsort(r: Rewriter, x: Value, dim: int = -1, descending: bool = False) -> Value:
    """The indices of TopK of everything."""
    return sort(r, x, dim, descending)[1]


@legalize(aten.cumsum.default)
def cumsum(r: Rewriter, x: Value, dim: int, *, dtype: torch.dtype | None = None) -> Value:
    """CumSum."""
    return r.emit(reductions.cum_sum, r.cast(x, r.result_dtype), dim)
