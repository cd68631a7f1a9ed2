"""Padding by its mode.

F.pad(x, p)                   -> constant_pad_nd(x, p, 0.0)
F.pad(x, p, mode="reflect")   -> reflection_pad1d / 2d / 3d
F.pad(x, p, mode="replicate") -> replication_pad1d / 2d / 3d
F.pad(x, p, mode="circular")  -> slices and cat
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule


@rule("pad")
def pad(engine: Engine, call: Call) -> Any:
    """The operator of the mode."""
    source, amounts, mode = call["self"], call["pad"], call["mode"]
    if mode == "constant":
        value = 0.0 if call["value"] is None else call["value"]
        return engine.call(aten.constant_pad_nd.default, source, amounts, value)
    if mode == "circular":
        return _circular(engine, source, amounts)
    family = {"reflect": "reflection_pad", "replicate": "replication_pad"}[mode]
    target = getattr(aten, f"{family}{len(amounts) // 2}d").default
    return engine.call(target, source, amounts)


@rule("constant_pad_nd")
def constant_pad(engine: Engine, call: Call) -> Any:
    """constant_pad_nd(x, pad, value), the value in the tensor's own kind of number."""
    if not any(call["pad"]):
        return engine.call(aten.clone.default, call["self"])
    value = float(call["value"]) if call["self"].is_floating_point() else call["value"]
    return engine.apply(call.target, {**call.named, "value": value}, call.result)


@rule("_pad_circular")
def pad_circular(engine: Engine, call: Call) -> Any:
    """Slices and cat."""
    return _circular(engine, call["self"], call["pad"])


def _circular(engine: Engine, source: Tensor, amounts: list[int]) -> Tensor:
    for index in range(len(amounts) // 2):
        dim = source.dim() - 1 - index
        left, right = amounts[2 * index : 2 * index + 2]
        source = _wrapped(engine, source, dim, left, right)
    return source


def _wrapped(engine: Engine, source: Tensor, dim: int, left: int, right: int) -> Tensor:
    """Negative amounts cut off, positive ones repeat the other end."""
    size = source.shape[dim]
    start, end = max(0, -left), size - max(0, -right)
    kept = engine.call(aten.slice.Tensor, source, dim, start, end)
    parts = [kept]
    if left > 0:
        parts.insert(0, engine.call(aten.slice.Tensor, kept, dim, end - start - left, end - start))
    if right > 0:
        parts.append(engine.call(aten.slice.Tensor, kept, dim, 0, right))
    joined: Tensor = engine.call(aten.cat.default, parts, dim) if len(parts) > 1 else kept
    return joined
