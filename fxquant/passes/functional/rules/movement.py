"""Views that keep all elements, and conversions.

view, flatten, unflatten, view_as, ravel   -> reshape(x, shape)
transpose, t, .T, .mT, movedim, swapaxes   -> permute(x, dims)
squeeze()                                  -> squeeze.dims(x, dims)
expand_as, broadcast_to                    -> expand(x, shape)
float(), to(dtype), type_as                -> _to_copy(x, dtype), or nothing
contiguous, clone, alias, no-op reshape    -> nothing
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from fxquant.ir.aten import aten
from fxquant.passes.functional.aliases import IDENTITY, View
from fxquant.passes.functional.engine import Call, Engine, rule


def reshaped(engine: Engine, source: Tensor, result: Tensor) -> Tensor:
    """`result`, a view or a copy of `source`, as a reshape."""
    before, after = list(source.shape), list(result.shape)
    if before == after:
        return engine.view(source, result)
    return engine.view(
        source,
        result,
        View(
            lambda node: engine.emit(aten.reshape.default, node, after),
            lambda _, new: engine.emit(aten.reshape.default, new, before),
        ),
    )


@rule(
    "reshape", "view_as", "reshape_as", "_unsafe_view", "flatten", "unflatten", "ravel",
    "atleast_1d", "atleast_2d", "atleast_3d",
)  # fmt: skip
def reshape(engine: Engine, call: Call) -> Any:
    """Every change of shape that keeps the order of the elements."""
    if not isinstance(call.result, Tensor):
        sources = call.named["tensors"]
        return [reshaped(engine, *pair) for pair in zip(sources, call.result, strict=True)]
    return reshaped(engine, next(iter(call.named.values())), call.result)


@rule("view")
def view(engine: Engine, call: Call) -> Any:
    """`view(shape)` is a reshape; `view(dtype)` looks at the bytes and stays."""
    if call["self"].dtype == call.result.dtype:
        return reshape(engine, call)
    return engine.apply(call.target, call.named, call.result)


@rule("permute", "transpose", "t", "numpy_T", "mT", "movedim")
def permute(engine: Engine, call: Call) -> Any:
    """Every change of the order of dimensions, found by trying the operator on distinct sizes."""
    source = call["self"]
    probe = torch.empty(tuple(range(2, 2 + source.dim())), device="meta")
    named = {**call.named, "self": probe}
    order = [size - 2 for size in Call(call.target, named).result.shape]
    return _permuted(engine, source, call.result, order)


@rule("adjoint", "mH", "matrix_H")
def adjoint(engine: Engine, call: Call) -> Any:
    """The transpose; complex numbers are not supported by any backend and stay as they are."""
    if call["self"].is_complex():
        return engine.apply(call.target, call.named, call.result)
    order = list(range(call["self"].dim()))
    order[-2:] = reversed(order[-2:])
    return _permuted(engine, call["self"], call.result, order)


def _permuted(engine: Engine, source: Tensor, result: Tensor, order: list[int]) -> Tensor:
    if order == sorted(order):
        return engine.view(source, result)
    inverse = [order.index(dim) for dim in range(len(order))]
    return engine.view(
        source,
        result,
        View(
            lambda node: engine.emit(aten.permute.default, node, order),
            lambda _, new: engine.emit(aten.permute.default, new, inverse),
        ),
    )


@rule("unsqueeze")
def unsqueeze(engine: Engine, call: Call) -> Any:
    """unsqueeze(x, dim)"""
    dim = call["dim"]
    return engine.view(
        call["self"],
        call.result,
        View(
            lambda node: engine.emit(aten.unsqueeze.default, node, dim),
            lambda _, new: engine.emit(aten.squeeze.dims, new, [dim]),
        ),
    )


@rule("squeeze")
def squeeze(engine: Engine, call: Call) -> Any:
    """squeeze.dims(x, dims) with the dimensions that it removes."""
    source = call["self"]
    given = call.named.get("dim", list(range(source.dim())))
    wanted = given if isinstance(given, list) else [given]
    dims = sorted(dim for dim in wanted if source.dim() and source.shape[dim] == 1)
    if not dims:
        return engine.view(source, call.result)
    before = list(source.shape)
    return engine.view(
        source,
        call.result,
        View(
            lambda node: engine.emit(aten.squeeze.dims, node, dims),
            lambda _, new: engine.emit(aten.reshape.default, new, before),
        ),
    )


@rule("expand", "expand_as", "broadcast_to")
def expand(engine: Engine, call: Call) -> Any:
    """expand(x, shape) with every size written out."""
    return expanded(engine, call["self"], call.result)


def expanded(engine: Engine, source: Tensor, result: Tensor) -> Tensor:
    """`result`, which broadcasts `source`, as an expand."""
    shape = list(result.shape)
    if list(source.shape) == shape:
        return engine.view(source, result)
    return engine.view(
        source, result, View(lambda node: engine.emit(aten.expand.default, node, shape))
    )


@rule("broadcast_tensors")
def broadcast_tensors(engine: Engine, call: Call) -> Any:
    """One expand for each tensor that needs it."""
    pairs = zip(call["tensors"], call.result, strict=True)
    return [expanded(engine, source, result) for source, result in pairs]


@rule("alias", "lift_fresh", "lift", "contiguous", "positive", "resolve_conj", "resolve_neg")
def identity(engine: Engine, call: Call) -> Any:
    """Nothing: values in the core dialect have no memory of their own."""
    return engine.view(call["self"], call.result)


@rule("clone", "lift_fresh_copy")
def clone(engine: Engine, call: Call) -> Any:
    """Nothing: the copy is a value of its own from here on."""
    return engine.define(call.result, engine.read(call["self"]))


@rule("detach", "detach_copy")
def detach(engine: Engine, call: Call) -> Any:
    """Stays for values that may carry gradients."""
    if not call["self"].is_floating_point():
        return engine.view(call["self"], call.result)
    return engine.view(
        call["self"],
        call.result,
        View(lambda node: engine.emit(aten.detach.default, node), IDENTITY.backward),
    )


@rule("to", "_to_copy", "type_as")
def convert(engine: Engine, call: Call) -> Any:
    """_to_copy(x, dtype) where the dtype (or the device) changes."""
    return converted(engine, call["self"], call.result)


def converted(engine: Engine, source: Tensor, result: Tensor) -> Tensor:
    """`result`, which has the values of `source` in its own dtype and on its own device."""
    kwargs: dict[str, Any] = {}
    if result.dtype != source.dtype:
        kwargs["dtype"] = result.dtype
    if result.device != source.device:
        kwargs["device"] = result.device
    if not kwargs:
        return engine.view(source, result)
    node: Node = engine.emit(aten._to_copy.default, engine.read(source), value=result, **kwargs)
    return engine.define(result, node)
