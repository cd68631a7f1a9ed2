"""Operators that move data and compute nothing; the result keeps scale and zero point of x.

Shapes, permutations, paddings and positions are Python tuples: constants of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fxquant.errors import InvalidGraph

from .values import QTensor, Value, data_of, has_data, operator


def _moved(x: Value, move: Callable[[Tensor], Tensor]) -> Value:
    return x.with_values(move(x.values)) if isinstance(x, QTensor) else move(x)


def _parts(x: Value, move: Callable[[Tensor], Sequence[Tensor]]) -> list[Value]:
    if isinstance(x, QTensor):
        return [x.with_values(part) for part in move(x.values)]
    return list(move(x))


@operator(keeps=True)
def reshape(x: Value, shape: Sequence[int]) -> Value:
    """RESHAPE; one size may be -1."""
    return _moved(x, lambda data: data.reshape(tuple(shape)))


@operator(keeps=True)
def squeeze(x: Value, *, squeeze_dims: Sequence[int] = ()) -> Value:
    """SQUEEZE."""
    dims = tuple(squeeze_dims) or tuple(i for i, size in enumerate(x.shape) if size == 1)
    return _moved(x, lambda data: data.squeeze(dims))


@operator(keeps=True)
def expand_dims(x: Value, axis: int) -> Value:
    """EXPAND_DIMS."""
    return _moved(x, lambda data: data.unsqueeze(axis))


@operator(keeps=True)
def transpose(x: Value, perm: Sequence[int]) -> Value:
    """TRANSPOSE; a channel axis moves along."""
    if isinstance(x, QTensor) and x.axis is not None:
        return x._replace(
            values=x.values.permute(tuple(perm)).contiguous(), axis=list(perm).index(x.axis)
        )
    return _moved(x, lambda data: data.permute(tuple(perm)).contiguous())


@operator(keeps=True)
def concatenation(values: Sequence[Value], *, axis: int = 0) -> Value:
    """CONCATENATION; int8 operands must have the result's scale."""
    joined = torch.cat([data_of(value) for value in values], dim=axis)
    first = values[0]
    return first.with_values(joined) if isinstance(first, QTensor) else joined


@operator(keeps=True)
def pack(values: Sequence[Value], *, axis: int = 0) -> Value:
    """PACK: stack along a new axis."""
    joined = torch.stack([data_of(value) for value in values], dim=axis)
    first = values[0]
    return first.with_values(joined) if isinstance(first, QTensor) else joined


@operator(keeps=True)
def unpack(x: Value, *, axis: int = 0) -> list[Value]:
    """UNPACK: one value for each index of the axis."""
    return _parts(x, lambda data: data.unbind(axis))


@operator(keeps=True)
def split(x: Value, axis: int, *, num_splits: int) -> list[Value]:
    """SPLIT into equal parts."""
    if x.shape[axis] % num_splits:
        raise InvalidGraph(f"split: {x.shape[axis]} cannot be split into {num_splits} equal parts")
    size = x.shape[axis] // num_splits
    return _parts(x, lambda data: data.split(size, axis))


@operator(keeps=True)
def split_v(x: Value, size_splits: Sequence[int], axis: int) -> list[Value]:
    """SPLIT_V into parts of given sizes, one of which may be -1."""
    known = sum(size for size in size_splits if size >= 0)
    sizes = [size if size >= 0 else x.shape[axis] - known for size in size_splits]
    return _parts(x, lambda data: data.split(sizes, axis))


@operator(keeps=True)
def slice(x: Value, begin: Sequence[int], size: Sequence[int]) -> Value:
    """SLICE; a size of -1 reaches to the end."""

    def cut(data: Tensor) -> Tensor:
        for dim, (start, length) in enumerate(zip(begin, size, strict=True)):
            data = data.narrow(dim, start, data.shape[dim] - start if length < 0 else length)
        return data

    return _moved(x, cut)


@operator(keeps=True)
def strided_slice(
    x: Value,
    begin: Sequence[int],
    end: Sequence[int],
    strides: Sequence[int],
    *,
    begin_mask: int = 0,
    end_mask: int = 0,
    shrink_axis_mask: int = 0,
) -> Value:
    """STRIDED_SLICE: Python slices; a mask's bit leaves that bound open or drops the axis."""

    def cut(data: Tensor) -> Tensor:
        dropped = []
        for dim, step in enumerate(strides):
            size = data.shape[dim]
            if shrink_axis_mask >> dim & 1:
                data = data.narrow(dim, begin[dim] % size, 1)
                dropped.append(dim)
                continue
            first = None if begin_mask >> dim & 1 else begin[dim]
            last = None if end_mask >> dim & 1 else end[dim]
            data = _take(data, dim, range(size)[first:last:step])
        return data.squeeze(tuple(dropped)) if dropped else data

    return _moved(x, cut)


def _take(data: Tensor, dim: int, positions: range) -> Tensor:
    if not positions:
        return data.narrow(dim, 0, 0)
    if positions.step < 0:
        last = data.shape[dim] - 1
        data, positions = (
            data.flip(dim),
            range(last - positions[0], last - positions[-1] + 1)[:: -positions.step],
        )
    taken = data.movedim(dim, 0)[positions.start : positions[-1] + 1 : positions.step]
    return taken.movedim(0, dim)


@operator(keeps=True)
def pad(x: Value, paddings: Sequence[Sequence[int]]) -> Value:
    """PAD with zeros: the zero point, where x is quantized."""
    fill = x.offset if isinstance(x, QTensor) else 0
    return _moved(x, lambda data: _padded(data, paddings, fill))


@operator(keeps=True)
def padv2(x: Value, paddings: Sequence[Sequence[int]], constant_values: Value) -> Value:
    """PADV2 with a constant of the scale of x."""
    fill = data_of(constant_values).item() if has_data(constant_values) else 0
    return _moved(x, lambda data: _padded(data, paddings, fill))


def _padded(data: Tensor, paddings: Sequence[Sequence[int]], fill: float) -> Tensor:
    flat = [cells for pair in reversed(paddings) for cells in pair]
    return functional.pad(data, flat, value=fill)


@operator(keeps=True)
def mirror_pad(x: Value, paddings: Sequence[Sequence[int]], *, mode: str = "REFLECT") -> Value:
    """MIRROR_PAD: REFLECT leaves the edge out, SYMMETRIC repeats it."""
    edge = 1 if mode == "REFLECT" else 0

    def padded(data: Tensor) -> Tensor:
        for dim, (before, after) in enumerate(paddings):
            size = data.shape[dim]
            head = data.narrow(dim, edge, before).flip(dim)
            tail = data.narrow(dim, size - edge - after, after).flip(dim)
            data = torch.cat([head, data, tail], dim)
        return data

    return _moved(x, padded)


@operator(keeps=True)
def tile(x: Value, multiples: Sequence[int]) -> Value:
    """TILE."""
    return _moved(x, lambda data: data.repeat(tuple(multiples)))


@operator(keeps=True)
def broadcast_to(x: Value, shape: Sequence[int]) -> Value:
    """BROADCAST_TO."""
    return _moved(x, lambda data: data.broadcast_to(tuple(shape)).contiguous())


@operator(keeps=True)
def reverse_v2(x: Value, axis: Sequence[int]) -> Value:
    """REVERSE_V2."""
    return _moved(x, lambda data: data.flip(tuple(axis)))
