"""Reductions along dimensions, and orders."""

from __future__ import annotations

import torch
from torch import Tensor

from .operator import operator

Sizes = tuple[int, ...]


@operator("ReduceMean", attribute_before={"axes": 18})
def reduce_mean(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    return torch.mean(x, axes, bool(keepdims))


@operator("ReduceSum")
def reduce_sum(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    return torch.sum(x, axes, bool(keepdims), dtype=x.dtype)


@operator("ReduceMax", attribute_before={"axes": 18})
def reduce_max(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    return torch.amax(x, axes, bool(keepdims))


@operator("ReduceMin", attribute_before={"axes": 18})
def reduce_min(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    return torch.amin(x, axes, bool(keepdims))


@operator("ReduceProd", attribute_before={"axes": 18})
def reduce_prod(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, bool(keepdims), dtype=x.dtype)
    return x


@operator("ReduceL1", attribute_before={"axes": 18})
def reduce_l1(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    return torch.sum(x.abs(), axes, bool(keepdims))


@operator("ReduceL2", attribute_before={"axes": 18})
def reduce_l2(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    return torch.sqrt(torch.sum(x * x, axes, bool(keepdims)))


@operator("ReduceLogSumExp", attribute_before={"axes": 18})
def reduce_log_sum_exp(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor:
    return torch.logsumexp(x, axes, bool(keepdims))


@operator("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1) -> Tensor:
    return torch.argmax(x, axis, bool(keepdims))


@operator("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1) -> Tensor:
    return torch.argmin(x, axis, bool(keepdims))


@operator("TopK")
def top_k(
    x: Tensor, k: Sizes, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, ...]:
    """Values, then indices."""
    found = torch.topk(x, k[0], axis, bool(largest), bool(sorted))
    return found.values, found.indices


@operator("CumSum", integers=("axis",))
def cum_sum(x: Tensor, axis: int) -> Tensor:
    return torch.cumsum(x, axis, dtype=x.dtype)
