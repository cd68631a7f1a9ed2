"""`x[index]` and `x[index] = value`.

x[0, :, 1:3]      -> select.int(x, 0, 0), slice.Tensor(x, 1, 1, 3)
x[..., None]      -> unsqueeze(x, 2)
x[:, idx]         -> index.Tensor(x, [None, idx])
x[mask] = 0       -> masked_fill.Scalar(x, mask, 0), then the write
x[idx] = y        -> index_put(x, [idx], y), then the write
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Engine
from fxquant.passes.functional.unsupported import Unsupported

Index = list[Tensor | None]


def getitem(engine: Engine, source: Tensor, index: Any) -> Any:
    """The value of `source[index]`."""
    part, indices = _basic(engine, source, index)
    if not indices:
        # Also `x[...]` is a new tensor object.
        return engine.call(aten.alias.default, part) if part is source else part
    if any(each is not None and each.dtype == torch.bool for each in indices):
        raise Unsupported(
            "a boolean index gives a shape that depends on the data", "use torch.where"
        )
    return engine.call(aten.index.Tensor, part, indices)


def setitem(engine: Engine, source: Tensor, index: Any, value: Any) -> None:
    """The write `source[index] = value`."""
    part, indices = _basic(engine, source, index)
    if not indices:
        engine.assign(part, _as_tensor(engine, value, part, list(part.shape)))
        return
    mask = _single_mask(indices)
    if mask is not None and _is_number(value):
        engine.assign(part, _masked(engine, part, indices.index(mask), mask, value))
        return
    given = _as_tensor(engine, value, part, [])
    if given.dtype != part.dtype:
        given = engine.call(aten._to_copy.default, given, dtype=part.dtype)
    engine.assign(part, engine.call(aten.index_put.default, part, indices, given))


def _basic(engine: Engine, source: Tensor, index: Any) -> tuple[Tensor, Index]:
    """Apply numbers, slices and None; what is left are tensor indices, one for each dimension."""
    part, dim = source, 0
    indices: Index = []
    for item in _without_ellipsis(source, _as_tuple(index)):
        if item is None:
            part = engine.call(aten.unsqueeze.default, part, dim)
            dim += 1
        elif isinstance(item, slice):
            part = _sliced(engine, part, dim, item)
            dim += 1
        elif isinstance(item, Tensor):
            indices.extend([None] * (dim - len(indices)))
            indices.append(item)
            dim += item.dim() if item.dtype in (torch.bool, torch.uint8) else 1
        elif isinstance(item, bool):
            raise Unsupported("an index that is True or False", "use unsqueeze")
        elif isinstance(item, Sequence):
            indices.extend([None] * (dim - len(indices)))
            indices.append(_constant(engine, list(item)))
            dim += 1
        else:
            part = engine.call(aten.select.int, part, dim, operator.index(item))
    return part, indices


def _sliced(engine: Engine, part: Tensor, dim: int, item: slice) -> Tensor:
    if item == slice(None):
        return part
    start, end, step = (None if each is None else int(each) for each in _parts(item))
    result: Tensor = engine.call(
        aten.slice.Tensor, part, dim, start, end, 1 if step is None else step
    )
    return result


def _parts(item: slice) -> tuple[Any, Any, Any]:
    return item.start, item.stop, item.step


def _as_tuple(index: Any) -> tuple[Any, ...]:
    return tuple(index) if isinstance(index, tuple) else (index,)


def _without_ellipsis(source: Tensor, items: tuple[Any, ...]) -> list[Any]:
    places = [place for place, item in enumerate(items) if item is Ellipsis]
    if not places:
        return list(items)
    used = sum(_dimensions(item) for item in items)
    whole = [slice(None)] * (source.dim() - used)
    place = places[0]
    return [*items[:place], *whole, *items[place + 1 :]]


def _dimensions(item: Any) -> int:
    """How many dimensions of the tensor an item takes."""
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8):
        return item.dim()
    return 1


def _constant(engine: Engine, data: Any) -> Tensor:
    with engine.real():
        value = torch.tensor(data)
    return engine.alias(value).tensor


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.dim() == 0)


def _as_tensor(engine: Engine, value: Any, like: Tensor, shape: list[int]) -> Tensor:
    """The value to be written, as a tensor; a number fills a shape."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, int | float | complex):
        result: Tensor = engine.call(aten.full.default, shape, value, dtype=like.dtype)
        return result
    return _constant(engine, value)


def _single_mask(indices: Index) -> Tensor | None:
    tensors = [each for each in indices if each is not None]
    return tensors[0] if len(tensors) == 1 and tensors[0].dtype == torch.bool else None


def _masked(engine: Engine, part: Tensor, dim: int, mask: Tensor, value: Any) -> Tensor:
    """`masked_fill` with the mask's dimensions at the front of those it is about."""
    missing = part.dim() - dim - mask.dim()
    if missing:
        shape = [*mask.shape, *[1] * missing]
        mask = engine.call(aten.reshape.default, mask, shape)
    overload = aten.masked_fill.Tensor if isinstance(value, Tensor) else aten.masked_fill.Scalar
    result: Tensor = engine.call(overload, part, mask, value)
    return result
