"""Looking values up by index: GATHER, GATHER_ND, EMBEDDING_LOOKUP, SELECT_V2, ONE_HOT.

index_select(x, 1, i)   ->   gather(x, i) {axis=1}
where(m, x, y)          ->   select_v2(m, x, y)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .elementwise import as_bool
from .grids import quantize_constant
from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value


def indices_of(r: Rewriter, indices: Value, size: int) -> Value:
    """Indices as int32 counted from the front; constants are checked and wrapped at once."""
    if isinstance(indices, Constant):
        data = indices.data.long()
        return Constant(indices.name, torch.where(data < 0, data + size, data).to(torch.int32))
    narrow = r.cast(indices, torch.int32)
    # Python's negative indices; the kernel has none. FLOOR_MOD maps both kinds.
    return r.emit(tfl.floor_mod, narrow, r.scalar(size, torch.int32))


@legalize(aten.embedding.default, moves=True)
def embedding(
    r: Rewriter,
    weight: Value,
    indices: Value,
    padding: int = -1,
    by_frequency: bool = False,
    sparse: bool = False,
) -> Value:
    """GATHER of rows; EMBEDDING_LOOKUP of rows stored as integers, which gives floats."""
    if isinstance(weight, Constant) and weight.narrow is not None:
        narrow = weight.narrow
        if narrow.quantization is not None:
            return _lookup(r, narrow, indices)
    return r.emit(tfl.gather, weight, r.cast(indices, torch.int32), axis=0)


def _lookup(r: Rewriter, table: Constant, indices: Value) -> Value:
    """The operator takes a vector of indices."""
    flat = r.reshape(r.cast(indices, torch.int32), (r.elements(indices),))
    return r.reshape(r.emit(tfl.embedding_lookup, flat, table), r.result_shape)


@legalize(aten.index_select.default, moves=True)
def index_select(r: Rewriter, x: Value, dim: int, indices: Value) -> Value:
    """GATHER along one axis."""
    axis = dim % len(r.shape(x))
    return r.emit(tfl.gather, x, r.cast(indices, torch.int32), axis=axis)


@legalize(aten.index.Tensor, moves=True)
def index(r: Rewriter, x: Value, indices: Sequence[Value | None]) -> Value:
    """GATHER for one index, GATHER_ND for several that stand side by side."""
    given = [(axis, value) for axis, value in enumerate(indices) if value is not None]
    if any(r.dtype(value) == torch.bool for _, value in given):
        raise Unsupported("a mask as index: the size of its result depends on the data")
    if len(given) == 1:
        axis, value = given[0]
        return r.emit(tfl.gather, x, indices_of(r, value, r.shape(x)[axis]), axis=axis)
    axes = [axis for axis, _ in given]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise Unsupported("indices with whole axes between them")
    return _several(r, x, axes, [value for _, value in given])


def _several(r: Rewriter, x: Value, axes: list[int], values: list[Value]) -> Value:
    """The indexed axes become one, and the indices one number."""
    sizes = [r.shape(x)[axis] for axis in axes]
    shape = r.broadcast_shape(*values)
    flat: Value | None = None
    for value, size in zip(values, sizes, strict=True):
        step = indices_of(r, value, size)
        flat = step if flat is None else _advance(r, flat, size, step)
    assert flat is not None
    first, last = axes[0], axes[-1]
    merged = (*r.shape(x)[:first], -1, *r.shape(x)[last + 1 :])
    total = 1
    for size in sizes:
        total *= size
    merged = tuple(total if size == -1 else size for size in merged)
    return r.emit(tfl.gather, r.reshape(x, merged), r.broadcast(flat, shape), axis=first)


def _advance(r: Rewriter, flat: Value, size: int, step: Value) -> Value:
    if isinstance(flat, Constant) and isinstance(step, Constant):
        return Constant(step.name, flat.data * size + step.data)
    return r.emit(tfl.add, r.emit(tfl.mul, flat, r.scalar(size, torch.int32)), step)


@legalize(aten.gather.default, moves=True)
def gather(r: Rewriter, x: Value, dim: int, indices: Value, *, sparse_grad: bool = False) -> Value:
    """GATHER in each row, the axis last."""
    rank = len(r.shape(x))
    axis = dim % rank
    last, _ = r.move_last(x, axis)
    picked, back = r.move_last(r.cast(indices, torch.int32), axis)
    lead = r.shape(picked)[:-1]
    for number, size in enumerate(lead):  # torch lets the indices be smaller
        last = r.slice(last, number, 0, size)
    rows = 1
    for size in lead:
        rows *= size
    table = r.reshape(last, (rows, r.shape(last)[-1]))
    flat = r.reshape(picked, (rows, r.shape(picked)[-1]))
    found = r.emit(tfl.gather, table, flat, axis=1, batch_dims=1)
    return back(r.reshape(found, r.shape(picked)))


@legalize(aten.where.self, quantized=True)
def where(r: Rewriter, condition: Value, x: Value, y: Value) -> Value:
    """SELECT_V2; integers brought onto the result's grid."""
    return _select(r, condition, x, y)


@legalize(aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar, quantized=True)
def where_scalar(r: Rewriter, condition: Value, x: Value | complex, y: Value | complex) -> Value:
    """SELECT_V2 with a number for one of the two."""
    return _select(r, condition, x, y)


@legalize(aten.masked_fill.Scalar, aten.masked_fill.Tensor, quantized=True)
def masked_fill(r: Rewriter, x: Value, mask: Value, value: Value | complex) -> Value:
    """SELECT_V2 between the value and x."""
    return _select(r, mask, value, x)


def _select(r: Rewriter, condition: Value, x: Value | complex, y: Value | complex) -> Value:
    branches = []
    for value in (x, y):
        if not isinstance(value, torch.fx.Node | Constant):
            value = r.scalar(value, torch.float32 if r.out else r.result_dtype)
        if r.out is None:
            branches.append(r.cast(value, r.result_dtype))
        elif isinstance(value, Constant):
            branches.append(quantize_constant(value.dequantize(), r.out))
        else:
            branches.append(r.quantize(value, r.out))
    return r.emit(tfl.select_v2, as_bool(r, condition), *branches)


@legalize(aten.one_hot.default)
def one_hot(r: Rewriter, x: Value, classes: int = -1) -> Value:
    """ONE_HOT."""
    if classes < 0:
        raise Unsupported("one_hot without num_classes: the size depends on the data")
    on, off = r.scalar(1, torch.int32), r.scalar(0, torch.int32)
    found = r.emit(
        tfl.one_hot, r.cast(x, torch.int32), depth=classes, on_value=on, off_value=off, axis=-1
    )
    return r.cast(found, torch.int64)


@legalize(aten.tril.default, quantized=True)
def tril(r: Rewriter, x: Value, diagonal: int = 0) -> Value:
    """SELECT_V2 with a constant mask."""
    return _triangle(r, x, torch.ones(r.shape(x)[-2:], dtype=torch.bool).tril(diagonal))


@legalize(aten.triu.default, quantized=True)
def triu(r: Rewriter, x: Value, diagonal: int = 0) -> Value:
    """SELECT_V2 with a constant mask."""
    return _triangle(r, x, torch.ones(r.shape(x)[-2:], dtype=torch.bool).triu(diagonal))


def _triangle(r: Rewriter, x: Value, mask: torch.Tensor) -> Value:
    return _select(r, Constant(f"{r.origin.name if r.origin else 'mask'}.mask", mask), x, 0)


@legalize(aten.slice_scatter.default, moves=True)
def slice_scatter(
    r: Rewriter,
    x: Value,
    source: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """The parts before, between and after, joined; with steps a GATHER of both."""
    size = r.shape(x)[dim]
    first, last, step = slice(start, end, step).indices(size)
    kind = r.qtype(x)
    if kind is not None:
        source = r.quantize(source, kind)
    axis = dim % len(r.shape(x))
    if step != 1:
        return _woven(r, x, source, axis, list(range(first, last, step)))
    last = max(first, last)
    parts = [r.slice(x, axis, 0, first), source, r.slice(x, axis, last, size - last)]
    parts = [part for part in parts if r.shape(part)[axis]]
    return parts[0] if len(parts) == 1 else r.emit(tfl.concatenation, parts, axis=axis)


def _woven(r: Rewriter, x: Value, source: Value, axis: int, places: list[int]) -> Value:
    size = r.shape(x)[axis]
    order = torch.arange(size)
    order[places] = size + torch.arange(len(places))
    both = r.emit(tfl.concatenation, [x, source], axis=axis)
    return r.emit(
        tfl.gather,
        both,
        Constant(f"{r.origin.name if r.origin else 'weave'}.order", order.to(torch.int32)),
        axis=axis,
    )


@legalize(aten.select_scatter.default, moves=True)
def select_scatter(r: Rewriter, x: Value, source: Value, dim: int, index: int) -> Value:
    """As `slice_scatter` with one index."""
    shape = r.shape(x)
    axis = dim % len(shape)
    index %= shape[axis]
    wide = r.reshape(source, (*shape[:axis], 1, *shape[axis + 1 :]))
    return slice_scatter(r, x, wide, axis, index, index + 1)
