"""New tensors.

    zeros, ones, empty, full, *_like, new_*   -> full(shape, value, dtype)
    arange                                    -> arange.start_step(start, end, step, dtype)

They depend on no value of the program, so constant folding takes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule

# The value of each; None: it is an argument.
_VALUES: dict[str, int | None] = {
    "zeros": 0, "zeros_like": 0, "new_zeros": 0, "ones": 1, "ones_like": 1, "new_ones": 1,
    "full": None, "full_like": None, "new_full": None, "scalar_tensor": None,
    "empty": 0, "empty_like": 0, "new_empty": 0, "empty_permuted": 0, "empty_strided": 0,
    "new_empty_strided": 0,
}  # fmt: skip


@rule(*_VALUES)
def full(engine: Engine, call: Call) -> Any:
    """full(shape, value, dtype)"""
    value: Any = _VALUES[call.name]
    if value is None:
        value = call.named.get("fill_value", call.named.get("s"))
    if isinstance(value, Tensor):
        return engine.call(aten.expand.default, value, list(call.result.shape))
    return engine.define(call.result, emit_full(engine, call.result, value))


def emit_full(engine: Engine, like: Tensor, value: Any) -> Node:
    """A node that fills the shape of `like` with a number."""
    if like.dtype == torch.bool:
        value = bool(value)
    elif like.is_floating_point():
        value = float(value)
    options: dict[str, Any] = {"dtype": like.dtype}
    if like.device.type != "cpu":
        options["device"] = like.device
    return engine.emit(aten.full.default, list(like.shape), value, value=like, **options)


@rule("arange")
def arange(engine: Engine, call: Call) -> Any:
    """arange.start_step(start, end, step, dtype)"""
    named = call.named
    start, step = named.get("start", 0), named.get("step", 1)
    options: dict[str, Any] = {"dtype": call.result.dtype}
    if call.result.device.type != "cpu":
        options["device"] = call.result.device
    node = engine.emit(
        aten.arange.start_step, start, named["end"], step, value=call.result, **options
    )
    return engine.define(call.result, node)
