"""Parts of a tensor.

    x[1], x[:, 1:3], x.narrow(1, 1, 2)          -> select.int, slice.Tensor
    chunk, split, tensor_split, hsplit, …       -> split_with_sizes(x, sizes, dim)
    unbind, iteration                           -> unbind.int(x, dim)

Indices and ends count from the front and lie within the dimension.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from fxquant.ir.aten import aten
from fxquant.passes.functional.aliases import View
from fxquant.passes.functional.engine import Call, Engine, rule


@rule("select")
def select(engine: Engine, call: Call) -> Any:
    """select.int(x, dim, index)"""
    return selected(engine, call["self"], call.result, call["dim"], call["index"])


def selected(engine: Engine, source: Tensor, result: Tensor, dim: int, index: int) -> Tensor:
    """`result`, one place of `source` along a dimension."""
    place = index + source.shape[dim] if index < 0 else index
    return engine.view(source, result, select_view(engine, dim, place))


def select_view(engine: Engine, dim: int, index: int) -> View:
    """The view of one place along a dimension."""
    return View(
        lambda node: engine.emit(aten.select.int, node, dim, index),
        lambda base, new: engine.emit(aten.select_scatter.default, base, new, dim, index),
    )


@rule("slice")
def slice_(engine: Engine, call: Call) -> Any:
    """slice.Tensor(x, dim, start, end, step)"""
    source, result, dim, step = call["self"], call.result, call["dim"], call["step"]
    size = source.shape[dim]
    start = 0 if call["start"] is None else call["start"]
    start = min(max(start + size if start < 0 else start, 0), size)
    length = result.shape[dim]
    end = min(start + length * step, size) if length else start
    return sliced(engine, source, result, dim, start, end, step)


@rule("narrow")
def narrow(engine: Engine, call: Call) -> Any:
    """A slice."""
    start = call["start"]
    if isinstance(start, Tensor):
        return engine.apply(call.target, call.named, call.result)
    start = start + call["self"].shape[call["dim"]] if start < 0 else start
    end = start + call["length"]
    return sliced(engine, call["self"], call.result, call["dim"], start, end, 1)


def sliced(
    engine: Engine, source: Tensor, result: Tensor, dim: int, start: int, end: int, step: int
) -> Tensor:
    """`result`, a range of `source` along a dimension."""
    if (start, end, step) == (0, source.shape[dim], 1):
        return engine.view(source, result)
    return engine.view(source, result, slice_view(engine, dim, start, end, step))


def slice_view(engine: Engine, dim: int, start: int, end: int, step: int = 1) -> View:
    """The view of a range along a dimension."""
    place = (dim, start, end, step)
    return View(
        lambda node: engine.emit(aten.slice.Tensor, node, *place),
        lambda base, new: engine.emit(aten.slice_scatter.default, base, new, *place),
    )


@rule("diagonal")
def diagonal(engine: Engine, call: Call) -> Any:
    """diagonal(x, offset, dim1, dim2)"""
    place = (call["offset"], call["dim1"], call["dim2"])
    return engine.view(
        call["self"],
        call.result,
        View(
            lambda node: engine.emit(aten.diagonal.default, node, *place),
            lambda base, new: engine.emit(aten.diagonal_scatter.default, base, new, *place),
        ),
    )


@rule("as_strided")
def as_strided(engine: Engine, call: Call) -> Any:
    """as_strided(x, size, stride, offset)"""
    place = (call["size"], call["stride"], call["storage_offset"])
    return engine.view(
        call["self"],
        call.result,
        View(
            lambda node: engine.emit(aten.as_strided.default, node, *place),
            lambda base, new: engine.emit(aten.as_strided_scatter.default, base, new, *place),
        ),
    )


@rule(
    "chunk", "split", "split_with_sizes", "tensor_split", "hsplit", "vsplit", "dsplit",
    "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes",
)  # fmt: skip
def split(engine: Engine, call: Call) -> Any:
    """split_with_sizes(x, sizes, dim)"""
    source = call["self"]
    rank_one = source.dim() == 1
    usual = {"hsplit": 0 if rank_one else 1, "vsplit": 0, "dsplit": 2}.get(call.name, 0)
    dim = call.named.get("dim", usual)
    parts = list(call.result)
    sizes = [part.shape[dim] for part in parts]
    if len(parts) == 1:
        return [engine.view(source, parts[0])]
    whole = engine.read(source)
    node = engine.emit(aten.split_with_sizes.default, whole, sizes, dim, value=tuple(parts))
    start = 0
    for index, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        view = slice_view(engine, dim, start, start + size)
        _place(engine, source, part, node, index, view)
        start += size
    return parts


@rule("unbind")
def unbind(engine: Engine, call: Call) -> Any:
    """unbind.int(x, dim)"""
    source, dim, parts = call["self"], call["dim"], list(call.result)
    node = engine.emit(aten.unbind.int, engine.read(source), dim, value=tuple(parts))
    for index, part in enumerate(parts):
        _place(engine, source, part, node, index, select_view(engine, dim, index))
    return parts


def _place(
    engine: Engine, source: Tensor, part: Tensor, node: Node, index: int, view: View
) -> None:
    """Let `part` be a view of `source` whose value is, for now, one output of `node`."""
    item = engine.emit_item(node, index)
    pending = [item]
    first_then_again = View(
        lambda parent: pending.pop() if pending else view.forward(parent), view.backward
    )
    engine.view(source, part, first_then_again)
