"""Tensors put together.

hstack, vstack, dstack, concat   -> cat(tensors, dim)
tile                             -> repeat(x, repeats)
fliplr, flipud                   -> flip(x, dims)
"""

from __future__ import annotations

from typing import Any

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule

_AT_LEAST = {
    "hstack": aten.atleast_1d.default,
    "vstack": aten.atleast_2d.default,
    "dstack": aten.atleast_3d.default,
}


@rule("hstack", "vstack", "dstack")
def stacks(engine: Engine, call: Call) -> Any:
    """cat of the tensors with enough dimensions."""
    parts = [engine.call(_AT_LEAST[call.name], each) for each in call["tensors"]]
    rank_one = parts[0].dim() == 1
    dim = {"hstack": 0 if rank_one else 1, "vstack": 0, "dstack": 2}[call.name]
    return engine.call(aten.cat.default, parts, dim)


@rule("tile")
def tile(engine: Engine, call: Call) -> Any:
    """repeat(x, repeats), one number for each dimension."""
    repeats = list(call["dims"])
    missing = [1] * (call["self"].dim() - len(repeats))
    return engine.call(aten.repeat.default, call["self"], missing + repeats)


@rule("fliplr", "flipud")
def flips(engine: Engine, call: Call) -> Any:
    """flip(x, dims)"""
    dim = {"fliplr": 1, "flipud": 0}[call.name]
    return engine.call(aten.flip.default, call["self"], [dim])


@rule("repeat_interleave")
def repeat_interleave(engine: Engine, call: Call) -> Any:
    """Each element beside its copies: a new dimension, expanded, merged."""
    repeats = call.named.get("repeats")
    if not isinstance(repeats, int):
        return engine.apply(call.target, call.named, call.result)
    source, dim = call["self"], call["dim"]
    if dim is None:
        source, dim = engine.call(aten.reshape.default, source, [-1]), 0
    shape = list(source.shape)
    apart = engine.call(aten.unsqueeze.default, source, dim + 1)
    spread = [*shape[: dim + 1], repeats, *shape[dim + 1 :]]
    wide = engine.call(aten.expand.default, apart, spread)
    return engine.call(aten.reshape.default, wide, list(call.result.shape))
