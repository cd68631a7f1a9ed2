"""Operators that move, repeat, pick and join values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .convolution import torch_padding
from .operator import operator

Sizes = tuple[int, ...]
Computed = Sizes | Tensor
"""Numbers that are known, or a vector that the file computes from shapes."""


def numbers(sizes: Computed) -> Sizes:
    """The numbers themselves."""
    return tuple(sizes.tolist()) if isinstance(sizes, Tensor) else tuple(sizes)


@operator("Identity")
def identity(x: Tensor) -> Tensor:
    return x


@operator("Shape")
def shape(x: Tensor) -> Tensor:
    """The sizes of all dimensions, a vector of int64."""
    return torch.tensor(x.shape, dtype=torch.int64)


@operator("Reshape")
def reshape(x: Tensor, shape: Computed) -> Tensor:
    """A size of 0 stays as it is, one of -1 is what is left."""
    wanted = [size or x.shape[axis] for axis, size in enumerate(numbers(shape))]
    return torch.reshape(x, wanted)


@operator("Transpose")
def transpose(x: Tensor, *, perm: Sizes) -> Tensor:
    return torch.permute(x, perm)


@operator("Unsqueeze")
def unsqueeze(x: Tensor, axes: Sizes) -> Tensor:
    """The axes count in the result."""
    for axis in sorted(axes):
        x = torch.unsqueeze(x, axis)
    return x


@operator("Squeeze")
def squeeze(x: Tensor, axes: Sizes) -> Tensor:
    return torch.squeeze(x, axes)


@operator("Expand")
def expand(x: Tensor, shape: Computed) -> Tensor:
    """A size of 1 leaves a dimension as it is."""
    return x.expand(torch.broadcast_shapes(x.shape, numbers(shape)))


@operator("Tile")
def tile(x: Tensor, repeats: Computed) -> Tensor:
    return x.repeat(numbers(repeats))


@operator("Concat", variadic=True)
def concat(values: list[Tensor], *, axis: int) -> Tensor:
    return torch.cat(values, axis)


@operator("Split")
def split(x: Tensor, sizes: Sizes, *, axis: int = 0) -> tuple[Tensor, ...]:
    return torch.split(x, list(sizes), axis)


@operator("Slice")
def slice(x: Tensor, starts: Sizes, ends: Computed, axes: Sizes, steps: Sizes) -> Tensor:
    """A negative step reads from the back; its end is `-size - 1` where it reads to the front."""
    for start, end, axis, step in zip(starts, numbers(ends), axes, steps, strict=True):
        size = x.shape[axis]
        if step > 0:
            x = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
            continue
        first = start % size
        count = (first - max(end + size, -1) - step - 1) // -step
        front = torch.ops.aten.slice.Tensor(x, axis, first + (count - 1) * step, first + 1, -step)
        x = torch.flip(front, (axis,))
    return x


@operator("Pad")
def pad(x: Tensor, pads: Sizes, value: float | None = None, *, mode: str = "constant") -> Tensor:
    """Pads are the begins of all dimensions, then the ends."""
    if mode == "constant":
        return F.pad(x, torch_padding(pads), value=0.0 if value is None else value)
    for axis in range(x.dim()):
        x = _picked(x, axis, pads[axis], pads[x.dim() + axis], mode)
    return x


def _picked(x: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    """One dimension with elements of its own around it."""
    if not begin and not end:
        return x
    size = x.shape[axis]
    index = torch.arange(-begin, size + end, device=x.device)
    if mode == "reflect":
        index = (size - 1) - (index.abs() - (size - 1)).abs()
    elif mode == "edge":
        index = index.clamp(0, size - 1)
    else:
        index = index % size
    return x.index_select(axis, index)


@operator("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """In the order of a pixel shuffle."""
    assert mode == "CRD"
    return F.pixel_shuffle(x, blocksize)


@operator("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """One dimension is replaced by those of the indices."""
    found = torch.index_select(x, axis, indices.reshape(-1).long() % x.shape[axis])
    return found.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, indices.long())


@operator("GatherND")
def gather_nd(x: Tensor, indices: Tensor) -> Tensor:
    """The last dimension of the indices goes through the first ones of the data."""
    return x[tuple(indices.long().unbind(-1))]


@operator("ScatterElements", since=16)
def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    if reduction == "add":
        return torch.scatter_add(x, axis, indices, updates)
    return torch.scatter(x, axis, indices, updates)


@operator("ScatterND", since=16)
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    return torch.index_put(x, tuple(indices.unbind(-1)), updates, reduction == "add")


@operator("Trilu", since=14, integers=("k",))
def trilu(x: Tensor, k: int, *, upper: int = 1) -> Tensor:
    """The triangle above or below a diagonal."""
    return torch.triu(x, k) if upper else torch.tril(x, k)
