"""Reductions over axes, searches and cumulative sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..kernels.mean import mean_integers
from .values import QTensor, QType, Value, data_of, needs_out, operator


def _axes(x: Value, axis: Sequence[int]) -> tuple[int, ...]:
    rank = len(x.shape)
    return tuple(sorted({dim % rank for dim in axis}))


@operator()
def mean(
    x: Value, axis: Sequence[int], *, keep_dims: bool = False, out: QType | None = None
) -> Value:
    """MEAN."""
    axes = _axes(x, axis)
    if isinstance(x, QTensor):
        return mean_integers(x, axes, keep_dims, needs_out(out, "mean"))
    return x.mean(axes, keepdim=keep_dims)


@operator()
def sum(x: Tensor, axis: Sequence[int], *, keep_dims: bool = False) -> Tensor:
    """SUM."""
    return x.sum(_axes(x, axis), keepdim=keep_dims).to(x.dtype)


def _one_by_one(
    x: Value, axis: Sequence[int], keep_dims: bool, reduce: Callable[[Tensor, int], Tensor]
) -> Value:
    data = data_of(x)
    for dim in reversed(_axes(x, axis)):
        data = reduce(data, dim)
        data = data.unsqueeze(dim) if keep_dims else data
    return x.with_values(data) if isinstance(x, QTensor) else data


@operator(keeps=True)
def reduce_max(x: Value, axis: Sequence[int], *, keep_dims: bool = False) -> Value:
    """REDUCE_MAX; the result keeps the scale of x."""
    return _one_by_one(x, axis, keep_dims, lambda data, dim: data.amax(dim))


@operator(keeps=True)
def reduce_min(x: Value, axis: Sequence[int], *, keep_dims: bool = False) -> Value:
    """REDUCE_MIN; the result keeps the scale of x."""
    return _one_by_one(x, axis, keep_dims, lambda data, dim: data.amin(dim))


@operator()
def reduce_prod(x: Tensor, axis: Sequence[int], *, keep_dims: bool = False) -> Value:
    """REDUCE_PROD."""
    return _one_by_one(x, axis, keep_dims, lambda data, dim: data.prod(dim).to(data.dtype))


@operator()
def reduce_any(x: Tensor, axis: Sequence[int], *, keep_dims: bool = False) -> Value:
    """REDUCE_ANY."""
    return _one_by_one(x, axis, keep_dims, lambda data, dim: data.any(dim))


@operator()
def reduce_all(x: Tensor, axis: Sequence[int], *, keep_dims: bool = False) -> Value:
    """REDUCE_ALL."""
    return _one_by_one(x, axis, keep_dims, lambda data, dim: data.all(dim))


@operator()
def arg_max(x: Value, axis: int, *, output_type: str = "INT64") -> Tensor:
    """ARG_MAX: the first of equal values."""
    return _first(data_of(x), axis, output_type, largest=True)


@operator()
def arg_min(x: Value, axis: int, *, output_type: str = "INT64") -> Tensor:
    """ARG_MIN: the first of equal values."""
    return _first(data_of(x), axis, output_type, largest=False)


def _first(data: Tensor, axis: int, output_type: str, largest: bool) -> Tensor:
    if data.dtype == torch.bool:
        data = data.to(torch.int8)
    best = data.amax(axis, keepdim=True) if largest else data.amin(axis, keepdim=True)
    found = (data == best).to(torch.int8).argmax(axis)
    return found.to(getattr(torch, output_type.lower()))


@operator(keeps=True)
def topk_v2(x: Value, k: int) -> list[Value]:
    """TOPK_V2 of the last axis: values in falling order, the lower index first, and indices."""
    data = data_of(x)
    values, indices = torch.sort(data, dim=-1, descending=True, stable=True)
    best, found = values[..., :k], indices[..., :k].to(torch.int32)
    return [x.with_values(best) if isinstance(x, QTensor) else best, found]


@operator()
def cumsum(x: Tensor, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """CUMSUM; exclusive leaves out the element itself, reverse starts at the end."""
    data = x.flip(axis) if reverse else x
    total = data.cumsum(axis).to(x.dtype)
    total = total - data if exclusive else total
    return total.flip(axis) if reverse else total
