"""Reshapes, transposes, broadcasts, joins and parts: data moves, whatever it means.

split(x, 4, dim=1)   ->   split {num_splits=2}, or one slice a part
cat([x, y], dim=1)   ->   concatenation; integers brought onto one grid before
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.aten import aten

from .pooling import strided
from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value

DELEGATED_SPLITS = range(2, 5)
MANY = 5
"""So many parts are taken apart and put together by one operator, though no delegate has it."""
PACKED = frozenset({torch.float32, torch.int8, torch.uint8, torch.int16, torch.int32})
"""What that operator takes."""


@legalize(
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten._reshape_alias.default,
    aten.view_as.default,
    aten.reshape_as.default,
    moves=True,
)
def reshape(r: Rewriter, x: Value, *_: object) -> Value:
    """RESHAPE, in all its spellings: the shape is known."""
    return r.reshape(x, r.result_shape)


@legalize(aten.permute.default, moves=True)
def permute(r: Rewriter, x: Value, dims: Sequence[int]) -> Value:
    """TRANSPOSE."""
    return r.transpose(x, dims)


@legalize(aten.transpose.int, aten.swapaxes.default, aten.swapdims.default, moves=True)
def transpose(r: Rewriter, x: Value, first: int, second: int) -> Value:
    """TRANSPOSE of two axes."""
    rank = len(r.shape(x))
    order = list(range(rank))
    order[first % rank], order[second % rank] = order[second % rank], order[first % rank]
    return r.transpose(x, order) if rank > 1 else x


@legalize(aten.t.default, aten.numpy_T.default, aten.mT.default, moves=True)
def t(r: Rewriter, x: Value) -> Value:
    """TRANSPOSE of a matrix."""
    return transpose(r, x, -2, -1) if len(r.shape(x)) > 1 else x


@legalize(aten.movedim.int, aten.movedim.intlist, moves=True)
def movedim(r: Rewriter, x: Value, source: int | Sequence[int], to: int | Sequence[int]) -> Value:
    """TRANSPOSE that takes axes to other places."""
    rank = len(r.shape(x))
    start = [source] if isinstance(source, int) else list(source)
    end = [to] if isinstance(to, int) else list(to)
    places = {e % rank: s % rank for s, e in zip(start, end, strict=True)}
    rest = iter(n for n in range(rank) if n not in places.values())
    return r.transpose(x, [places[n] if n in places else next(rest) for n in range(rank)])


@legalize(
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.view.dtype,
    moves=True,
)
def identity(r: Rewriter, x: Value, *_: object, **__: object) -> Value:
    """Nothing."""
    if r.dtype(x) != r.result_dtype and not r.is_quantized(x):
        raise Unsupported("a view as another dtype")
    return x


@legalize(aten.expand.default, aten.expand_as.default, aten.broadcast_to.default, moves=True)
def expand(r: Rewriter, x: Value, *_: object, **__: object) -> Value:
    """BROADCAST_TO."""
    shape = r.result_shape
    return r.broadcast(r.with_rank(x, len(shape)), shape)


@legalize(aten.repeat.default, aten.tile.default, moves=True)
def repeat(r: Rewriter, x: Value, times: Sequence[int]) -> Value:
    """TILE."""
    rank = max(len(times), len(r.shape(x)))
    x = r.with_rank(x, rank)
    multiples = (1,) * (rank - len(times)) + tuple(times)
    return x if set(multiples) <= {1} else r.emit(tfl.tile, x, multiples=multiples)


@legalize(aten.repeat_interleave.self_int, moves=True)
def repeat_interleave(
    r: Rewriter, x: Value, times: int, dim: int | None = None, *, output_size: int | None = None
) -> Value:
    """A new axis behind `dim`, repeated and merged with it."""
    if dim is None:
        x, dim = r.reshape(x, (-1,) if r.elements(x) else (0,)), 0
    shape = r.shape(x)
    axis = dim % len(shape)
    wide = r.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    many = r.emit(
        tfl.tile,
        wide,
        multiples=tuple(times if n == axis + 1 else 1 for n in range(len(shape) + 1)),
    )
    return r.reshape(many, r.result_shape)


@legalize(aten.cat.default, aten.concat.default, aten.concatenate.default, quantized=True)
def cat(r: Rewriter, values: Sequence[Value], dim: int = 0) -> Value:
    """CONCATENATION, every operand on the result's grid; empty operands are left out."""
    kept = [value for value in values if r.shape(value) != (0,)]
    joined = [_joinable(r, value) for value in kept]
    if len(joined) == 1:
        return joined[0]
    axis = dim % len(r.result_shape)
    return r.emit(tfl.concatenation, joined, axis=axis)


def _joinable(r: Rewriter, value: Value) -> Value:
    if r.out is not None:
        return r.quantize(value, r.out)
    return r.cast(value, r.result_dtype)


@legalize(aten.stack.default, quantized=True)
def stack(r: Rewriter, values: Sequence[Value], dim: int = 0) -> Value:
    """Each with a new axis, then CONCATENATION, which the delegate takes; PACK for many."""
    axis = dim % len(r.result_shape)
    shape = r.shape(values[0])
    values = [_joinable(r, value) for value in values]
    if len(values) >= MANY and r.dtype(values[0]) in PACKED:
        return r.emit(tfl.pack, values, axis=axis)
    wide = [r.reshape(value, (*shape[:axis], 1, *shape[axis:])) for value in values]
    return wide[0] if len(wide) == 1 else r.emit(tfl.concatenation, wide, axis=axis)


@legalize(aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes, moves=True)
def split(r: Rewriter, x: Value, sizes: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    """SPLIT into equal parts, else one SLICE a part."""
    size = r.shape(x)[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, size - start) for start in range(0, size, sizes)] if size else [0]
    return _parts(r, x, list(sizes), dim)


def _parts(r: Rewriter, x: Value, sizes: list[int], dim: int) -> tuple[Value, ...]:
    axis = dim % len(r.shape(x))
    if len(set(sizes)) == 1 and len(sizes) in DELEGATED_SPLITS and not isinstance(x, Constant):
        return r.emit_several(tfl.split, x, axis=axis, num_splits=len(sizes))
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    return tuple(r.slice(x, axis, start, size) for start, size in zip(starts, sizes, strict=True))


@legalize(aten.chunk.default, aten.unsafe_chunk.default, moves=True)
def chunk(r: Rewriter, x: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    """As `split`."""
    size = r.shape(x)[dim]
    return split(r, x, -(-size // chunks), dim)


@legalize(aten.tensor_split.sections, moves=True)
def tensor_split(r: Rewriter, x: Value, sections: int, dim: int = 0) -> tuple[Value, ...]:
    """As `split`, the first parts one longer."""
    small, more = divmod(r.shape(x)[dim], sections)
    return _parts(r, x, [small + (n < more) for n in range(sections)], dim)


@legalize(aten.unbind.int, moves=True)
def unbind(r: Rewriter, x: Value, dim: int = 0) -> tuple[Value, ...]:
    """One SLICE an index, without the axis; UNPACK for many."""
    shape = r.shape(x)
    axis = dim % len(shape)
    if shape[axis] >= MANY and r.dtype(x) in PACKED and not isinstance(x, Constant):
        return r.emit_several(tfl.unpack, x, axis=axis)
    rest = (*shape[:axis], *shape[axis + 1 :])
    return tuple(r.reshape(part, rest) for part in _parts(r, x, [1] * shape[axis], axis))


@legalize(aten.select.int, moves=True)
def select(r: Rewriter, x: Value, dim: int, index: int) -> Value:
    """SLICE of one, without the axis."""
    shape = r.shape(x)
    axis = dim % len(shape)
    part = r.slice(x, axis, index % shape[axis], 1)
    return r.reshape(part, (*shape[:axis], *shape[axis + 1 :]))


@legalize(aten.narrow.default, moves=True)
def narrow(r: Rewriter, x: Value, dim: int, start: int, length: int) -> Value:
    """SLICE."""
    return r.slice(x, dim, start % r.shape(x)[dim] if start < 0 else start, length)


@legalize(aten.slice.Tensor, moves=True)
def slice_tensor(
    r: Rewriter,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """SLICE, with steps STRIDED_SLICE."""
    shape = r.shape(x)
    axis = dim % len(shape)
    first, last, step = slice(start, end, step).indices(shape[axis])
    ranges = [(0, size, 1) for size in shape]
    ranges[axis] = (first, max(first, last), step)
    return strided(r, x, ranges)


@legalize(aten.flip.default, moves=True)
def flip(r: Rewriter, x: Value, dims: Sequence[int]) -> Value:
    """REVERSE_V2."""
    rank = len(r.shape(x))
    return r.emit(tfl.reverse_v2, x, axis=tuple(sorted(dim % rank for dim in dims))) if dims else x


@legalize(aten.roll.default, moves=True)
def roll(r: Rewriter, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    """Two SLICEs exchanged, for each axis."""
    if not dims:
        return r.reshape(roll(r, r.reshape(x, (r.elements(x),)), shifts, (0,)), r.shape(x))
    for shift, axis in zip(shifts, dims, strict=True):
        size = r.shape(x)[axis]
        cut = (size - shift) % size if size else 0
        if cut:
            halves = [r.slice(x, axis, cut, size - cut), r.slice(x, axis, 0, cut)]
            x = r.emit(tfl.concatenation, halves, axis=axis % len(r.shape(x)))
    return x


@legalize(aten.pixel_shuffle.default, moves=True)
def pixel_shuffle(r: Rewriter, x: Value, factor: int) -> Value:
    """DEPTH_TO_SPACE after the channels took its order: (row, column, channel)."""
    *lead, channels, height, width = r.shape(x)
    if r.dtype(x) == torch.int16:  # which DEPTH_TO_SPACE has no kernel for
        parts = (_product(lead), channels // factor**2, factor, factor, height, width)
        return r.reshape(r.transpose(r.reshape(x, parts), (0, 1, 4, 2, 5, 3)), r.result_shape)
    flat = r.reshape(
        x,
        (-1 if lead else 1, channels, height, width)
        if not lead
        else (_product(lead), channels, height, width),
    )
    last = r.nhwc(flat)
    if channels != factor**2:
        order = (
            torch.arange(channels).reshape(channels // factor**2, factor * factor).t().reshape(-1)
        )
        last = r.emit(tfl.gather, last, Constant(_own(r, "order"), order.to(torch.int32)), axis=3)
    result = r.nchw(r.emit(tfl.depth_to_space, last, block_size=factor))
    return r.reshape(result, r.result_shape)


@legalize(aten.pixel_unshuffle.default, moves=True)
def pixel_unshuffle(r: Rewriter, x: Value, factor: int) -> Value:
    """SPACE_TO_DEPTH, then the channels in torch's order: (channel, row, column)."""
    *lead, channels, height, width = r.shape(x)
    if r.dtype(x) == torch.int16:
        parts = (_product(lead), channels, height // factor, factor, width // factor, factor)
        return r.reshape(r.transpose(r.reshape(x, parts), (0, 1, 3, 5, 2, 4)), r.result_shape)
    last = r.nhwc(r.reshape(x, (_product(lead), channels, height, width)))
    deep: Value = r.emit(tfl.space_to_depth, last, block_size=factor)
    if channels > 1:
        order = (
            torch.arange(channels * factor**2).reshape(factor * factor, channels).t().reshape(-1)
        )
        deep = r.emit(tfl.gather, deep, Constant(_own(r, "order"), order.to(torch.int32)), axis=3)
    return r.reshape(r.nchw(deep), r.result_shape)


@legalize(aten.channel_shuffle.default, aten.native_channel_shuffle.default, moves=True)
def channel_shuffle(r: Rewriter, x: Value, groups: int) -> Value:
    """RESHAPE, TRANSPOSE, RESHAPE."""
    shape = r.shape(x)
    split_up = r.reshape(x, (shape[0], groups, shape[1] // groups, *shape[2:]))
    order = (0, 2, 1, *range(3, len(shape) + 1))
    return r.reshape(r.transpose(split_up, order), shape)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _own(r: Rewriter, name: str) -> str:
    return f"{r.origin.name if r.origin is not None else 'constants'}.{name}"


@legalize(aten.constant_pad_nd.default, aten.pad.default, moves=True)
def pad(
    r: Rewriter,
    x: Value,
    pads: Sequence[int],
    mode: str | complex = "constant",
    value: complex | None = None,
) -> Value:
    """PAD, PADV2 for another value than 0, MIRROR_PAD; parts joined for the other modes."""
    if isinstance(mode, str) and mode != "constant":
        return PAD_MODES[mode](r, x, pads)
    filler = value if isinstance(mode, str) else mode  # constant_pad_nd has it in third place
    return pad_constant(r, x, pads, 0 if filler is None else filler)


def _pairs(r: Rewriter, x: Value, pads: Sequence[int]) -> list[tuple[int, int]]:
    rank = len(r.shape(x))
    pairs = [(int(pads[n]), int(pads[n + 1])) for n in range(0, len(pads), 2)]
    return [(0, 0)] * (rank - len(pairs)) + pairs[::-1]


def pad_constant(r: Rewriter, x: Value, pads: Sequence[int], value: complex) -> Value:
    """Constant padding; what is negative is cut off."""
    pairs = _pairs(r, x, pads)
    for axis, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:
            start = max(-before, 0)
            x = r.slice(x, axis, start, r.shape(x)[axis] - start - max(-after, 0))
    pairs = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if not any(before or after for before, after in pairs):
        return x
    if value == 0:
        return r.emit(tfl.pad, x, paddings=tuple(pairs))
    kind: QType | None = r.qtype(x)
    filler = r.scalar(value, torch.float32 if kind else r.dtype(x))
    given = r.quantize(filler, kind) if kind else filler
    return r.emit(tfl.padv2, x, paddings=tuple(pairs), constant_values=given)


@legalize(
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
    moves=True,
)
def reflection_pad(r: Rewriter, x: Value, pads: Sequence[int]) -> Value:
    """MIRROR_PAD."""
    return r.emit(tfl.mirror_pad, x, paddings=tuple(_pairs(r, x, pads)), mode="REFLECT")


@legalize(
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.replication_pad3d.default,
    moves=True,
)
def replication_pad(r: Rewriter, x: Value, pads: Sequence[int]) -> Value:
    """The outer cells, repeated and joined on."""
    return _joined(
        r, x, pads, lambda size, before, after: ([(0, 1)] * before, [(size - 1, 1)] * after)
    )


def circular_pad(r: Rewriter, x: Value, pads: Sequence[int]) -> Value:
    """Cells of the other end, joined on."""
    return _joined(
        r,
        x,
        pads,
        lambda size, before, after: (
            [(size - before, before)] if before else [],
            [(0, after)] if after else [],
        ),
    )


def _joined(r: Rewriter, x: Value, pads: Sequence[int], ends: object) -> Value:
    for axis, (before, after) in enumerate(_pairs(r, x, pads)):
        first, second = ends(r.shape(x)[axis], before, after)  # type: ignore[operator]
        parts = [
            *(r.slice(x, axis, start, size) for start, size in first),
            x,
            *(r.slice(x, axis, start, size) for start, size in second),
        ]
        if len(parts) > 1:
            x = r.emit(tfl.concatenation, parts, axis=axis)
    return x


PAD_MODES = {"reflect": reflection_pad, "replicate": replication_pad, "circular": circular_pad}


@legalize(aten.as_strided.default, moves=True)
def as_strided(
    r: Rewriter, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Value:
    """GATHER with the places of the elements, which are known."""
    source = r.core.args[0] if r.core is not None else None
    held = source.meta["val"] if isinstance(source, torch.fx.Node) else None
    if not isinstance(held, torch.Tensor) or not held.is_contiguous() or held.storage_offset():
        raise Unsupported("a strided view of a tensor that is a view itself")
    places = torch.full((), int(offset or 0))
    for extent, step in zip(size, stride, strict=True):
        places = places.unsqueeze(-1) + torch.arange(extent) * step
    flat = r.reshape(x, (r.elements(x),))
    return r.emit(tfl.gather, flat, Constant(_own(r, "places"), places.to(torch.int32)), axis=0)


@legalize(aten.diagonal.default, moves=True)
def diagonal(r: Rewriter, x: Value, offset: int = 0, first: int = 0, second: int = 1) -> Value:
    """GATHER from the two axes made one."""
    rank = len(r.shape(x))
    rows, columns = first % rank, second % rank
    order = [n for n in range(rank) if n not in (rows, columns)] + [rows, columns]
    last = r.transpose(x, order)
    *lead, height, width = r.shape(last)
    places = torch.arange(height * width).reshape(height, width).diagonal(offset)
    flat = r.reshape(last, (*lead, height * width))
    indices = Constant(_own(r, "places"), places.to(torch.int32).contiguous())
    return r.emit(tfl.gather, flat, indices, axis=len(lead))


@legalize(aten.unfold.default, moves=True)
def unfold(r: Rewriter, x: Value, dim: int, size: int, step: int) -> Value:
    """GATHER of overlapping parts along one axis."""
    axis = dim % len(r.shape(x))
    starts = torch.arange((r.shape(x)[axis] - size) // step + 1) * step
    places = starts[:, None] + torch.arange(size)
    indices = Constant(_own(r, "places"), places.to(torch.int32))
    found = r.emit(tfl.gather, x, indices, axis=axis)
    rank = len(r.shape(found))
    return r.transpose(found, [*(n for n in range(rank) if n != axis + 1), axis + 1])
