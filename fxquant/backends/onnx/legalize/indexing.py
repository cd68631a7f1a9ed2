"""Rules that pick and place values by indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import elementwise, movement
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Rewriter, Unsupported


@legalize(aten.embedding.default)
def embedding(r: Rewriter, weight: Value, indices: Value, *_: object) -> Value:
    """Gather of rows."""
    return r.emit(movement.gather, weight, indices, axis=0)


@legalize(aten.index_select.default, moves=True)
def index_select(r: Rewriter, x: Value, dim: int, indices: Value) -> Value:
    """Gather."""
    return r.emit(movement.gather, x, indices, axis=dim % r.rank(x))


@legalize(aten.gather.default, moves=True)
def gather(r: Rewriter, x: Value, dim: int, indices: Value, **_: object) -> Value:
    """GatherElements."""
    return r.emit(movement.gather_elements, x, indices, axis=dim % r.rank(x))


@legalize(aten.index.Tensor, moves=True)
def index(r: Rewriter, x: Value, indices: Sequence[Value | None]) -> Value:
    """Gather by one tensor, GatherND by several; those that stand apart go to the front."""
    given = [(axis, value) for axis, value in enumerate(indices) if value is not None]
    if any(r.dtype(value) == torch.bool for _, value in given):
        raise Unsupported("the shape of a selection by a mask depends on the data")
    axes = [axis for axis, _ in given]
    if len(given) == 1:
        return r.emit(movement.gather, x, given[0][1], axis=axes[0])
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    start, rank = axes[0] if adjacent else 0, r.rank(x)
    front = (*axes, *(n for n in range(rank) if n not in axes))
    picked = r.emit(
        movement.gather_nd, r.transpose(x, front), _coordinates(r, [v for _, v in given])
    )
    shared = r.rank(picked) - (rank - len(axes))
    before = range(shared, shared + start)
    return r.transpose(picked, (*before, *range(shared), *range(shared + start, r.rank(picked))))


def _coordinates(r: Rewriter, indices: Sequence[Value]) -> Value:
    shape = torch.broadcast_shapes(*(r.shape(value) for value in indices))
    parts = []
    for value in indices:
        value = r.cast(value, torch.int64)
        if r.shape(value) != tuple(shape):
            value = r.emit(movement.expand, value, tuple(shape))
        parts.append(r.reshape(r.node(value), (*shape, 1)))
    return r.emit(movement.concat, parts, axis=len(shape))


@legalize(aten.index_put.default)
def index_put(
    r: Rewriter,
    x: Value,
    indices: Sequence[Value | None],
    values: Value,
    accumulate: bool = False,
) -> Value:
    """ScatterND; Where for a mask."""
    if len(indices) == 1 and indices[0] is not None and r.dtype(indices[0]) == torch.bool:
        if r.rank(values) == 0 and r.rank(indices[0]) == r.rank(x) and not accumulate:
            return r.emit(elementwise.where, indices[0], values, x)
        raise Unsupported("values placed by a mask")
    if any(value is None for value in indices):
        front = [axis for axis, value in enumerate(indices) if value is not None]
        return _put_behind(r, x, front, [v for v in indices if v is not None], values, accumulate)
    return _scatter(r, x, [v for v in indices if v is not None], values, accumulate)


def _put_behind(
    r: Rewriter,
    x: Value,
    axes: list[int],
    indices: list[Value],
    values: Value,
    accumulate: bool,
) -> Value:
    """The indexed dimensions moved to the front and back again."""
    if len(axes) > 1:
        raise Unsupported("several index tensors behind a whole dimension")
    rank, axis = r.rank(x), axes[0]
    order = (axis, *(n for n in range(rank) if n != axis))
    back = tuple(order.index(n) for n in range(rank))
    width = r.rank(indices[0])
    shape = list(r.shape(x))
    shape[axis : axis + 1] = r.shape(indices[0])
    if r.shape(values) != tuple(shape):
        values = r.emit(movement.expand, values, tuple(shape))
    inner = (*range(axis, axis + width), *range(axis), *range(axis + width, len(shape)))
    turned = r.transpose(values, inner)
    return r.transpose(_scatter(r, r.transpose(x, order), indices, turned, accumulate), back)


def _scatter(r: Rewriter, x: Value, indices: list[Value], values: Value, accumulate: bool) -> Value:
    if accumulate and r.opset < 16:
        raise Unsupported("adding at indices needs opset 16 or later")
    places = _coordinates(r, indices)
    shape = (*r.shape(places)[:-1], *r.shape(x)[len(indices) :])
    if r.shape(values) != shape:
        values = r.emit(movement.expand, values, shape)
    reduction = "add" if accumulate else "none"
    return r.emit(movement.scatter_nd, x, places, values, reduction=reduction)


@legalize(aten.scatter.src)
def scatter(r: Rewriter, x: Value, dim: int, indices: Value, source: Value) -> Value:
    """ScatterElements, of as many elements as there are indices."""
    return _scatter_elements(r, x, dim, indices, source, "none")


@legalize(aten.scatter_add.default)
def scatter_add(r: Rewriter, x: Value, dim: int, indices: Value, source: Value) -> Value:
    """ScatterElements that adds."""
    if r.opset < 16:
        raise Unsupported("adding at indices needs opset 16 or later")
    return _scatter_elements(r, x, dim, indices, source, "add")


def _scatter_elements(
    r: Rewriter, x: Value, dim: int, indices: Value, source: Value, reduction: str
) -> Value:
    shape = r.shape(indices)
    if r.shape(source) != shape:
        axes = tuple(range(len(shape)))
        ones = (1,) * len(shape)
        source = r.emit(movement.slice, source, (0,) * len(shape), shape, axes, ones)
    return r.emit(
        movement.scatter_elements, x, indices, source, axis=dim % r.rank(x), reduction=reduction
    )


@legalize(aten.one_hot.default)
def one_hot(r: Rewriter, x: Value, classes: int = -1) -> Value:
    """Equal to each class."""
    count = r.result_shape[-1]
    numbers = r.constant(torch.arange(count), "classes")
    column = r.reshape(x, (*r.shape(x), 1))
    return r.cast(r.emit(elementwise.equal, column, numbers), torch.int64)


@legalize(aten.slice_scatter.default)
def slice_scatter(
    r: Rewriter,
    x: Value,
    source: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """What is before, the new part, and what is behind; ScatterElements with a step."""
    size = r.shape(x)[dim]
    first, last = start or 0, size if end is None else min(end, size)
    if step != 1:
        shape = [1] * r.rank(x)
        shape[dim] = -1
        places = torch.arange(first, last, step).reshape(shape).expand(r.shape(source))
        return r.emit(
            movement.scatter_elements,
            x,
            r.constant(places.contiguous(), "places"),
            source,
            axis=dim,
        )
    parts = [source]
    if first:
        parts.insert(0, r.emit(movement.slice, x, (0,), (first,), (dim,), (1,)))
    if last < size:
        parts.append(r.emit(movement.slice, x, (last,), (size,), (dim,), (1,)))
    return r.emit(movement.concat, parts, axis=dim) if len(parts) > 1 else source


@legalize(aten.select_scatter.default)
def select_scatter(r: Rewriter, x: Value, source: Value, dim: int, index: int) -> Value:
    """What is before, the new slice, and what is behind."""
    shape = list(r.shape(x))
    place = index % shape[dim]
    shape[dim] = 1
    return slice_scatter(r, x, r.reshape(r.node(source), shape), dim, place, place + 1)
