"""Reductions: MEAN, SUM, REDUCE_MAX and relatives, searches, sorting, norms.

mean(x) {dim=[2,3]}      ->   mean {axis=(2,3)}
max(x) {dim=1}           ->   reduce_max {axis=(1,)}, arg_max {axis=1}
var(x) {dim=[1]}         ->   mean of squared_difference, times n / (n - 1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.aten import aten

from .elementwise import as_bool
from .grids import float32
from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Value

Dims = int | Sequence[int] | None


def axes_of(r: Rewriter, x: Value, dims: Dims) -> tuple[int, ...]:
    """The axes that a `dim` argument means; all of them for none."""
    rank = len(r.shape(x))
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return tuple(range(rank))
    several = (dims,) if isinstance(dims, int) else tuple(dims)
    return tuple(sorted(axis % rank for axis in several)) if rank else ()


def _typed(r: Rewriter, x: Value, dtype: torch.dtype | None) -> Value:
    return r.cast(x, r.result_dtype) if r.out is None else x


@legalize(aten.mean.dim, aten.mean.default, quantized=True)
def mean(
    r: Rewriter,
    x: Value,
    dims: Dims = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    """MEAN."""
    x = _typed(r, x, dtype)
    if not r.shape(x):
        return x
    return r.emit(tfl.mean, x, axis=axes_of(r, x, dims), keep_dims=keep, out=r.out)


@legalize(aten.sum.dim_IntList, aten.sum.default, quantized=True)
def sum(
    r: Rewriter,
    x: Value,
    dims: Dims = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    """SUM; of integers MEAN times their number, for the reference kernel forgets their scale."""
    x = _typed(r, x, dtype)
    if not r.shape(x):
        return x
    axes = axes_of(r, x, dims)
    if r.out is None:
        return r.emit(tfl.sum, x, axis=axes, keep_dims=keep)
    count = math.prod(r.shape(x)[axis] for axis in axes)
    part = QType(r.out.dtype, float32(r.out.scale / count), r.out.zero_point)
    mean = r.emit(tfl.mean, x, axis=axes, keep_dims=keep, out=part)
    return r.emit(tfl.mul, *r.operands(mean, float(count)), out=r.out)


@legalize(aten.amax.default, moves=True)
def amax(r: Rewriter, x: Value, dims: Dims = (), keep: bool = False) -> Value:
    """REDUCE_MAX."""
    return r.emit(tfl.reduce_max, x, axis=axes_of(r, x, dims), keep_dims=keep)


@legalize(aten.amin.default, moves=True)
def amin(r: Rewriter, x: Value, dims: Dims = (), keep: bool = False) -> Value:
    """REDUCE_MIN."""
    return r.emit(tfl.reduce_min, x, axis=axes_of(r, x, dims), keep_dims=keep)


@legalize(aten.max.default, moves=True)
def max_all(r: Rewriter, x: Value) -> Value:
    """REDUCE_MAX over everything."""
    return amax(r, x)


@legalize(aten.min.default, moves=True)
def min_all(r: Rewriter, x: Value) -> Value:
    """REDUCE_MIN over everything."""
    return amin(r, x)


@legalize(aten.max.dim, moves=True)
def max_dim(r: Rewriter, x: Value, dim: int, keep: bool = False) -> tuple[Value, Value]:
    """REDUCE_MAX and ARG_MAX."""
    return amax(r, x, dim, keep), argmax(r, x, dim, keep)


@legalize(aten.min.dim, moves=True)
def min_dim(r: Rewriter, x: Value, dim: int, keep: bool = False) -> tuple[Value, Value]:
    """REDUCE_MIN and ARG_MIN."""
    return amin(r, x, dim, keep), argmin(r, x, dim, keep)


@legalize(aten.argmax.default, moves=True)
def argmax(r: Rewriter, x: Value, dim: int | None = None, keep: bool = False) -> Value:
    """ARG_MAX; the first of several, as torch on the CPU."""
    return _search(r, tfl.arg_max, x, dim, keep)


@legalize(aten.argmin.default, moves=True)
def argmin(r: Rewriter, x: Value, dim: int | None = None, keep: bool = False) -> Value:
    """ARG_MIN."""
    return _search(r, tfl.arg_min, x, dim, keep)


def _search(r: Rewriter, function: object, x: Value, dim: int | None, keep: bool) -> Value:
    shape = r.shape(x)
    if r.dtype(x) == torch.int64:
        x = r.cast(x, torch.int32)
    if dim is None:
        found = r.emit(function, r.reshape(x, (-1,)), axis=0, output_type="int64")  # type: ignore[arg-type]
        return r.reshape(found, (1,) * len(shape)) if keep else found
    axis = dim % len(shape)
    found = r.emit(function, x, axis=axis, output_type="int64")  # type: ignore[arg-type]
    return r.reshape(found, (*shape[:axis], 1, *shape[axis + 1 :])) if keep else found


@legalize(aten.prod.dim_int, aten.prod.default)
def prod(
    r: Rewriter,
    x: Value,
    dim: int | None = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    """REDUCE_PROD."""
    x = _typed(r, x, dtype)
    return r.emit(tfl.reduce_prod, x, axis=axes_of(r, x, dim), keep_dims=keep)


@legalize(aten.any.default, aten.any.dim, aten.any.dims)
def any(r: Rewriter, x: Value, dims: Dims = None, keep: bool = False) -> Value:
    """REDUCE_ANY."""
    return r.emit(tfl.reduce_any, as_bool(r, x), axis=axes_of(r, x, dims), keep_dims=keep)


@legalize(aten.all.default, aten.all.dim, aten.all.dims)
def all(r: Rewriter, x: Value, dims: Dims = None, keep: bool = False) -> Value:
    """REDUCE_ALL."""
    return r.emit(tfl.reduce_all, as_bool(r, x), axis=axes_of(r, x, dims), keep_dims=keep)


@legalize(aten.var.correction, aten.var.dim, aten.var.default)
def var(
    r: Rewriter,
    x: Value,
    dims: Dims | bool = None,
    unbiased: bool = True,
    keep: bool = False,
    *,
    correction: complex | None = None,
    keepdim: bool = False,
) -> Value:
    """The mean of squared differences, corrected for the degrees of freedom."""
    if isinstance(dims, bool):
        unbiased, dims = dims, ()
    freedom = (1 if unbiased else 0) if correction is None else correction
    return variance(r, x, axes_of(r, x, dims), keep or keepdim, float(freedom.real))


def variance(r: Rewriter, x: Value, axes: tuple[int, ...], keep: bool, correction: float) -> Value:
    """The variance over some axes."""
    center = r.emit(tfl.mean, x, axis=axes, keep_dims=True)
    squares = r.emit(tfl.squared_difference, x, center)
    result: Value = r.emit(tfl.mean, squares, axis=axes, keep_dims=keep)
    count = math.prod(r.shape(x)[axis] for axis in axes)
    if correction == 0:
        return result
    factor = count / (count - correction) if count > correction else float("nan")
    return r.emit(tfl.mul, result, r.scalar(factor))


@legalize(aten.std.correction, aten.std.dim, aten.std.default)
def std(
    r: Rewriter,
    x: Value,
    dims: Dims | bool = None,
    unbiased: bool = True,
    keep: bool = False,
    *,
    correction: complex | None = None,
    keepdim: bool = False,
) -> Value:
    """SQRT of the variance."""
    return r.emit(tfl.sqrt, var(r, x, dims, unbiased, keep, correction=correction, keepdim=keepdim))


@legalize(aten.var_mean.correction)
def var_mean(
    r: Rewriter,
    x: Value,
    dims: Dims = None,
    *,
    correction: complex | None = None,
    keepdim: bool = False,
) -> tuple[Value, Value]:
    """Variance and mean."""
    axes = axes_of(r, x, dims)
    center = r.emit(tfl.mean, x, axis=axes, keep_dims=keepdim)
    return var(r, x, dims, correction=correction, keepdim=keepdim), center


@legalize(aten.logsumexp.default)
def logsumexp(r: Rewriter, x: Value, dims: Dims, keep: bool = False) -> Value:
    """The maximum plus the logarithm of the rest."""
    axes = axes_of(r, x, dims)
    top = r.emit(tfl.reduce_max, x, axis=axes, keep_dims=True)
    rest = r.emit(tfl.sum, r.emit(tfl.exp, r.emit(tfl.sub, x, top)), axis=axes, keep_dims=True)
    result = r.emit(tfl.add, r.emit(tfl.log, rest), top)
    return result if keep else r.reshape(result, r.result_shape)


@legalize(aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten.norm.Scalar)
def vector_norm(
    r: Rewriter,
    x: Value,
    order: complex | None = 2,
    dims: Dims = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Value:
    """The root of a sum of powers."""
    axes = axes_of(r, x, dims)
    order = 2 if order is None else order
    if order == 2:
        squares = r.emit(tfl.sum, r.emit(tfl.mul, x, x), axis=axes, keep_dims=keep)
        return r.emit(tfl.sqrt, squares)
    size = r.emit(tfl.abs, x)
    if order == 1:
        return r.emit(tfl.sum, size, axis=axes, keep_dims=keep)
    if order == float("inf"):
        return r.emit(tfl.reduce_max, size, axis=axes, keep_dims=keep)
    if order == float("-inf"):
        return r.emit(tfl.reduce_min, size, axis=axes, keep_dims=keep)
    if order == 0:
        raise Unsupported("a norm of order 0")
    powers = r.emit(tfl.sum, r.emit(tfl.pow, size, r.scalar(order)), axis=axes, keep_dims=keep)
    return r.emit(tfl.pow, powers, r.scalar(1 / order))


@legalize(aten.cumsum.default)
def cumsum(r: Rewriter, x: Value, dim: int, *, dtype: torch.dtype | None = None) -> Value:
    """CUMSUM."""
    x = r.cast(x, r.result_dtype)
    return r.emit(tfl.cumsum, x, axis=dim % max(len(r.shape(x)), 1)) if r.shape(x) else x


@legalize(aten.topk.default, moves=True)
def topk(
    r: Rewriter, x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Value, Value]:
    """TOPK_V2 over the last axis; the smallest by way of the negative."""
    last, back = r.move_last(x, dim)
    if not largest:
        if r.is_quantized(x):
            raise Unsupported("topk of the smallest on integers")
        last = r.emit(tfl.neg, last)
    values, indices = r.emit_several(tfl.topk_v2, last, k=k)
    result: Value = values if largest else r.emit(tfl.neg, values)
    return back(result), r.cast(back(indices), torch.int64)


@legalize(aten.sort.default, aten.sort.stable, moves=True)
def sort(
    r: Rewriter, x: Value, dim: int = -1, descending: bool = False, *, stable: bool | None = None
) -> tuple[Value, Value]:
    """TOPK_V2 of all elements."""
    return topk(r, x, r.shape(x)[dim], dim, descending)


@legalize(aten.argsort.default, moves=True)
def argsort(r: Rewriter, x: Value, dim: int = -1, descending: bool = False) -> Value:
    """The indices of a sort."""
    return topk(r, x, r.shape(x)[dim], dim, descending)[1]


@legalize(aten.aminmax.default, moves=True)
def aminmax(
    r: Rewriter, x: Value, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Value, Value]:
    """REDUCE_MIN and REDUCE_MAX."""
    return amin(r, x, () if dim is None else dim, keepdim), amax(
        r, x, () if dim is None else dim, keepdim
    )


@legalize(aten.kthvalue.default)
def kthvalue(
    r: Rewriter, x: Value, k: int, dim: int = -1, keep: bool = False
) -> tuple[Value, Value]:
    """One of the sorted values."""
    axis = dim % len(r.shape(x))
    values, indices = topk(r, x, k, axis, False)
    return tuple(_picked(r, value, axis, k - 1, keep) for value in (values, indices))  # type: ignore[return-value]


def _picked(r: Rewriter, x: Value, axis: int, index: int, keep: bool) -> Value:
    part = r.slice(x, axis, index, 1)
    shape = r.shape(part)
    return part if keep else r.reshape(part, (*shape[:axis], *shape[axis + 1 :]))


@legalize(aten.median.dim)
def median_dim(r: Rewriter, x: Value, dim: int, keep: bool = False) -> tuple[Value, Value]:
    """The lower one of the two in the middle."""
    return kthvalue(r, x, (r.shape(x)[dim] + 1) // 2, dim, keep)


@legalize(aten.median.default)
def median(r: Rewriter, x: Value) -> Value:
    """The median of everything."""
    return median_dim(r, r.reshape(x, (r.elements(x),)), 0)[0]
