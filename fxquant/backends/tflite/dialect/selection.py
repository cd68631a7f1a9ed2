"""Operators that select values by index or condition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .values import QTensor, Value, data_of, operator, real_of


def _like(x: Value, data: Tensor) -> Value:
    return x.with_values(data) if isinstance(x, QTensor) else data


@operator(keeps=True)
def gather(x: Value, indices: Tensor, *, axis: int = 0, batch_dims: int = 0) -> Value:
    """GATHER: indices within [0, size); the first batch_dims dimensions are paired."""
    data, axis = data_of(x), axis % data_of(x).dim()
    wide = indices.to(torch.int64)
    if not batch_dims:
        found = data.index_select(axis, wide.reshape(-1))
        return _like(x, found.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))
    lead = indices.shape[:batch_dims]
    wide = wide.reshape(*lead, *[1] * (axis - batch_dims), *indices.shape[batch_dims:])
    positions = [
        torch.arange(data.shape[dim], device=data.device).reshape(
            [-1 if other == dim else 1 for other in range(wide.dim())]
        )
        for dim in range(axis)
    ]
    return _like(x, data[(*positions, wide)])


@operator(keeps=True)
def gather_nd(x: Value, indices: Tensor) -> Value:
    """GATHER_ND: the last dimension of indices holds coordinates of the first dimensions of x."""
    return _like(x, data_of(x)[tuple(indices.to(torch.int64).unbind(-1))])


@operator()
def scatter_nd(indices: Tensor, updates: Tensor, shape: Sequence[int]) -> Tensor:
    """SCATTER_ND: sums of updates at coordinates, zero elsewhere."""
    result = updates.new_zeros(tuple(shape))
    return result.index_put(tuple(indices.to(torch.int64).unbind(-1)), updates, accumulate=True)


@operator()
def embedding_lookup(ids: Tensor, params: Value) -> Tensor:
    """EMBEDDING_LOOKUP: rows of a table; float rows from an integer table."""
    if isinstance(params, QTensor) and params.axis == 0:
        rows = params.values[ids.to(torch.int64)].to(torch.float32)
        scale = params.scale[ids.to(torch.int64)]
        return rows * scale.reshape(*scale.shape, *[1] * (rows.dim() - scale.dim()))
    return real_of(params)[ids.to(torch.int64)]


@operator(keeps=True)
def one_hot(
    indices: Tensor, depth: int, on_value: Value, off_value: Value, *, axis: int = -1
) -> Value:
    """ONE_HOT; an index outside [0, depth) has no on value."""
    axis = axis if axis >= 0 else indices.dim()
    shape = [1] * (indices.dim() + 1)
    shape[axis] = depth
    hot = indices.unsqueeze(axis) == torch.arange(depth, device=indices.device).reshape(shape)
    return _like(on_value, torch.where(hot, data_of(on_value), data_of(off_value)))


@operator(keeps=True)
def select_v2(condition: Tensor, x: Value, y: Value) -> Value:
    """SELECT_V2: x where the condition holds, else y; broadcasts; x and y share their scale."""
    return _like(x, torch.where(condition, data_of(x), data_of(y)))


@operator(keeps=True)
def dynamic_update_slice(x: Value, update: Value, start_indices: Tensor) -> Value:
    """DYNAMIC_UPDATE_SLICE: x with a box of it replaced; the box is moved inside x."""
    data, box = data_of(x).clone(), data_of(update)
    view = data
    for dim, start in enumerate(start_indices.tolist()):
        last = data.shape[dim] - box.shape[dim]
        view = view.narrow(dim, min(max(int(start), 0), last), box.shape[dim])
    view.copy_(box)
    return _like(x, data)
