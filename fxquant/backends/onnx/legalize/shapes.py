"""Rules of operators that move, repeat and join values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import elementwise, movement
from fxquant.ir.aten import aten
from fxquant.ir.operators import expand_dim, narrow_dim

from .registry import legalize
from .rewriter import Number, Rewriter

Sizes = Sequence[int]


@legalize(
    aten.reshape.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    torch.ops.prims.collapse_view.default,
    torch.ops.prims.squeeze.default,
    moves=True,
)
def reshape(r: Rewriter, x: Value, *_: object) -> Value:
    """Reshape: whatever it is called, the shape of the result is known."""
    return r.reshape(x, r.result_shape)


@legalize(aten.detach.default, aten.alias.default, aten.clone.default, aten.contiguous.default)
def unchanged(r: Rewriter, x: Value, *_: object, **__: object) -> Value:
    """Nothing: a value stands for itself."""
    return x


@legalize(aten.permute.default, torch.ops.prims.transpose.default, moves=True)
def permute(r: Rewriter, x: Value, order: Sizes) -> Value:
    """Transpose."""
    return r.transpose(x, order)


@legalize(aten.transpose.int, moves=True)
def transpose(r: Rewriter, x: Value, first: int, second: int) -> Value:
    """Transpose of two dimensions."""
    order = list(range(r.rank(x)))
    order[first], order[second] = order[second], order[first]
    return r.transpose(x, order)


@legalize(aten.t.default, moves=True)
def turn(r: Rewriter, x: Value) -> Value:
    """Transpose of a matrix."""
    return r.transpose(x, tuple(reversed(range(r.rank(x)))))


@legalize(aten.expand.default, moves=True)
def expand(r: Rewriter, x: Value, shape: Sizes, **_: object) -> Value:
    """Expand, none where the shape stays."""
    return x if r.shape(x) == r.result_shape else r.emit(movement.expand, x, r.result_shape)


@legalize(expand_dim, moves=True)
def expand_like(r: Rewriter, x: Value, like: Value, dim: int, like_dim: int) -> Value:
    """Expand to a size that is computed from a shape; 1 leaves a dimension as it is."""
    axis = dim % r.rank(x)
    sizes: list[Node | int] = [1] * r.rank(x)
    sizes[axis] = r.size_of(like, like_dim % r.rank(like))
    return r.emit(movement.expand, x, r.sizes(sizes))


@legalize(narrow_dim, moves=True)
def narrow_like(
    r: Rewriter, x: Value, like: Value, dim: int, like_dim: int, offset: int = 0
) -> Value:
    """Slice to a size that is computed from a shape."""
    end = r.size_of(like, like_dim % r.rank(like))
    if offset:
        end = r.emit(elementwise.add, end, offset)
    return r.emit(movement.slice, x, (0,), end, (dim % r.rank(x),), (1,))


@legalize(aten.repeat.default, moves=True)
def repeat(r: Rewriter, x: Value, counts: Sizes) -> Value:
    """Tile."""
    front = (1,) * (len(counts) - r.rank(x))
    return r.emit(movement.tile, r.reshape(x, front + r.shape(x)), tuple(counts))


@legalize(aten.cat.default, moves=True)
def cat(r: Rewriter, values: Sequence[Value], dim: int = 0) -> Value:
    """Concat; an empty vector, which torch skips, is left out."""
    rank = len(r.result_shape)
    kept = [value for value in values if r.shape(value) != (0,) or rank == 1]
    return r.emit(movement.concat, r.operands(*kept), axis=dim % rank)


@legalize(aten.stack.default, moves=True)
def stack(r: Rewriter, values: Sequence[Value], dim: int = 0) -> Value:
    """Concat of values with one more dimension."""
    axis = dim % len(r.result_shape)
    shape = r.shape(values[0])
    taller = (*shape[:axis], 1, *shape[axis:])
    parts = [r.reshape(r.node(value), taller) for value in values]
    return r.emit(movement.concat, r.operands(*parts), axis=axis)


@legalize(aten.split_with_sizes.default, moves=True)
def split_with_sizes(r: Rewriter, x: Value, sizes: Sizes, dim: int = 0) -> tuple[Value, ...]:
    """Split."""
    return r.emit_several(movement.split, x, tuple(sizes), axis=dim % r.rank(x))


@legalize(aten.split.Tensor, moves=True)
def split(r: Rewriter, x: Value, size: int, dim: int = 0) -> tuple[Value, ...]:
    """Split into equal parts, and what is left."""
    extent = r.shape(x)[dim]
    sizes = [min(size, extent - start) for start in range(0, extent, size)]
    return split_with_sizes(r, x, sizes, dim)


@legalize(aten.unbind.int, moves=True)
def unbind(r: Rewriter, x: Value, dim: int = 0) -> tuple[Value, ...]:
    """Split into slices, without the dimension."""
    shape = list(r.shape(x))
    count = shape.pop(dim)
    parts = split_with_sizes(r, x, [1] * count, dim)
    return tuple(r.reshape(part, shape) for part in parts)


def sliced(r: Rewriter, x: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
    """A range along one dimension."""
    return r.emit(movement.slice, x, (start,), (end,), (axis,), (step,))


@legalize(aten.slice.Tensor, moves=True)
def slice_(
    r: Rewriter,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """Slice."""
    size = r.shape(x)[dim]
    first = 0 if start is None else start + size if start < 0 else start
    last = size if end is None else end + size if end < 0 else min(end, size)
    return x if (first, last, step) == (0, size, 1) else sliced(r, x, dim, first, last, step)


@legalize(aten.select.int, moves=True)
def select(r: Rewriter, x: Value, dim: int, index: int) -> Value:
    """Gather of one index."""
    return r.emit(movement.gather, x, r.index(index), axis=dim % r.rank(x))


@legalize(aten.flip.default, torch.ops.prims.rev.default, moves=True)
def flip(r: Rewriter, x: Value, dims: Sizes) -> Value:
    """Slice from the back."""
    axes = tuple(dim % r.rank(x) for dim in dims)
    if not axes:
        return x
    ends = tuple(-r.shape(x)[axis] - 1 for axis in axes)
    return r.emit(movement.slice, x, (-1,) * len(axes), ends, axes, (-1,) * len(axes))


@legalize(aten.roll.default, moves=True)
def roll(r: Rewriter, x: Value, shifts: Sizes, dims: Sizes = ()) -> Value:
    """The end and the beginning change places."""
    shape = r.shape(x)
    if not dims:
        x, dims = r.reshape(x, (-1,)), (0,)
    for shift, dim in zip(shifts, dims, strict=True):
        axis, size = dim % r.rank(x), r.shape(x)[dim]
        cut = -shift % size
        if cut:
            parts = [sliced(r, x, axis, cut, size), sliced(r, x, axis, 0, cut)]
            x = r.emit(movement.concat, parts, axis=axis)
    return r.reshape(x, shape)


@legalize(aten.pixel_shuffle.default, moves=True)
def pixel_shuffle(r: Rewriter, x: Value, factor: int) -> Value:
    """DepthToSpace in torch's order."""
    shape = r.shape(x)
    flat = r.reshape(x, (-1, *shape[-3:]))
    found = r.emit(movement.depth_to_space, flat, blocksize=factor, mode="CRD")
    return r.reshape(found, r.result_shape)


@legalize(aten.pixel_unshuffle.default, moves=True)
def pixel_unshuffle(r: Rewriter, x: Value, factor: int) -> Value:
    """Reshape and Transpose: SpaceToDepth has another order."""
    channels, height, width = r.shape(x)[-3:]
    parts = (-1, channels, height // factor, factor, width // factor, factor)
    moved = r.transpose(r.reshape(x, parts), (0, 1, 3, 5, 2, 4))
    return r.reshape(moved, r.result_shape)


# -- padding -------------------------------------------------------------------------------------


def _pads(r: Rewriter, x: Value, padding: Sizes) -> tuple[int, ...]:
    """From torch's order, the last dimension first, to begins and ends."""
    rank = r.rank(x)
    begins, ends = [0] * rank, [0] * rank
    for number in range(len(padding) // 2):
        begins[rank - 1 - number] = padding[2 * number]
        ends[rank - 1 - number] = padding[2 * number + 1]
    return (*begins, *ends)


@legalize(aten.constant_pad_nd.default, moves=True)
def constant_pad(r: Rewriter, x: Value, padding: Sizes, value: Number = 0) -> Value:
    """Pad; negative padding cuts off."""
    pads = _pads(r, x, padding)
    return r.emit(movement.pad, x, pads, *r.operands(value))


def _mirrored(mode: str) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value, padding: Sizes) -> Value:
        """Pad with elements of its own."""
        return r.emit(movement.pad, x, _pads(r, x, padding), mode=mode)

    return rule


for _rank in (1, 2, 3):
    legalize(getattr(aten, f"reflection_pad{_rank}d").default, moves=True)(_mirrored("reflect"))
    legalize(getattr(aten, f"replication_pad{_rank}d").default, moves=True)(_mirrored("edge"))


# -- creation and triangles ------------------------------------------------------------------------


@legalize(aten.full.default)
def full(
    r: Rewriter, shape: Sizes, value: Number, *, dtype: torch.dtype | None = None, **_: object
) -> Value:
    """A constant."""
    wanted = r.result_dtype if dtype is None else dtype
    return r.constant(torch.full(tuple(shape), value, dtype=wanted), "full")


@legalize(aten.full_like.default)
def full_like(r: Rewriter, x: Value, value: Number, **_: object) -> Value:
    """A constant."""
    return r.constant(torch.full(r.result_shape, value, dtype=r.result_dtype), "full")


@legalize(aten.arange.start_step, aten.arange.default, aten.arange.start)
def arange(r: Rewriter, *bounds: Number, **_: object) -> Value:
    """A constant."""
    return r.constant(torch.arange(*bounds, dtype=r.result_dtype), "range")


@legalize(torch.ops.prims.iota.default)
def iota(r: Rewriter, length: int, *, start: int, step: int, **_: object) -> Value:
    """A constant."""
    numbers = torch.arange(start, start + length * step, step, dtype=r.result_dtype)
    return r.constant(numbers, "range")


@legalize(aten.scalar_tensor.default)
def scalar_tensor(r: Rewriter, value: Number, **_: object) -> Value:
    """A constant."""
    return r.constant(torch.tensor(value, dtype=r.result_dtype), "number")


def _triangle(upper: int) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value, diagonal: int = 0) -> Value:
        """Trilu; a mask where the dtype is bool, which runtimes leave out."""
        ones = torch.ones(r.shape(x)[-2:], dtype=torch.bool)
        kept = ones.triu(diagonal) if upper else ones.tril(diagonal)
        if r.dtype(x) == torch.bool:
            return r.emit(elementwise.logical_and, x, r.constant(kept, "kept"))
        return r.emit(movement.trilu, x, diagonal, upper=upper)

    return rule


legalize(aten.tril.default)(_triangle(0))
legalize(aten.triu.default)(_triangle(1))
