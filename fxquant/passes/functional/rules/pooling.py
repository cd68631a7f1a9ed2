"""Pools with all numbers written out.

max_pool2d(x, 2)   -> max_pool2d(x, [2,2], [2,2]): the stride is never implied
"""

from __future__ import annotations

from typing import Any

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule


@rule(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices",
)  # fmt: skip
def pool(engine: Engine, call: Call) -> Any:
    """max_pool2d(x, kernel_size, stride, padding, …)"""
    named = dict(call.named)
    rank = int(call.name.partition("pool")[2][0])
    for name in ("kernel_size", "stride", "padding", "dilation"):
        value = named.get(name)
        if isinstance(value, list) and len(value) == 1:
            named[name] = value * rank
    if not named["stride"]:
        named["stride"] = named["kernel_size"]
    return engine.apply(call.target, named, call.result)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_avg_pool(engine: Engine, call: Call) -> Any:
    """adaptive_avg_pool2d(x, output_size)"""
    rank = int(call.name[-2])
    named = {**call.named, "output_size": list(call.result.shape[-rank:])}
    return engine.apply(call.target, named, call.result)


@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
def inner_adaptive_avg_pool(engine: Engine, call: Call) -> Any:
    """The same operators, as they stand behind autograd."""
    target = getattr(aten, call.name.removeprefix("_")).default
    return engine.call(target, call["self"], call["output_size"])
