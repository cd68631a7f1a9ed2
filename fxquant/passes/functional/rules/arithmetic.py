"""One spelling for each arithmetic operation.

x + 1                  -> add.Tensor(x, 1): numbers stay literal operands
1 - x                  -> rsub.Scalar(x, 1)
x // y                 -> div.Tensor_mode(x, y, rounding_mode="floor")
clamp_min, clamp_max   -> clamp(x, min, max)
hardtanh(x, 0, 6)      -> relu6(x)
where with numbers     -> where.self(condition, x, 0.0)
mm, bmm, mv, dot       -> matmul(x, y)
square                 -> pow.Tensor_Scalar(x, 2)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule

# Operators whose `Tensor` overload also takes a number.
_TENSOR_FORM = {
    "add": aten.add.Tensor,
    "sub": aten.sub.Tensor,
    "mul": aten.mul.Tensor,
    "div": aten.div.Tensor,
}


@rule("add", "sub", "mul")
def add_sub_mul(engine: Engine, call: Call) -> Any:
    """add.Tensor(x, y), y a tensor or a number."""
    return engine.apply(_TENSOR_FORM[call.name], call.named, call.result)


@rule("div")
def div(engine: Engine, call: Call) -> Any:
    """div.Tensor(x, y), or div.Tensor_mode where there is a rounding mode."""
    if call.named.get("rounding_mode") is not None:
        return engine.apply(aten.div.Tensor_mode, call.named, call.result)
    named = {"self": call["self"], "other": call["other"]}
    return engine.apply(aten.div.Tensor, named, call.result)


@rule("floor_divide")
def floor_divide(engine: Engine, call: Call) -> Any:
    """div.Tensor_mode(x, y, rounding_mode="floor")"""
    return engine.call(aten.div.Tensor_mode, *call.named.values(), rounding_mode="floor")


@rule("rsub")
def rsub(engine: Engine, call: Call) -> Any:
    """rsub.Scalar(x, 1) for a number; sub.Tensor with the operands exchanged for a tensor."""
    if isinstance(call["other"], Tensor):
        return engine.call(aten.sub.Tensor, call["other"], call["self"], alpha=call["alpha"])
    return engine.apply(aten.rsub.Scalar, call.named, call.result)


@rule("square")
def square(engine: Engine, call: Call) -> Any:
    """pow.Tensor_Scalar(x, 2)"""
    return engine.call(aten.pow.Tensor_Scalar, call["self"], 2)


@rule("clamp", "clamp_min", "clamp_max")
def clamp(engine: Engine, call: Call) -> Any:
    """clamp(x, min, max) for numbers, clamp.Tensor for tensors."""
    low, high = call.named.get("min"), call.named.get("max")
    named = {"self": call["self"], "min": low, "max": high}
    tensors = isinstance(low, Tensor) or isinstance(high, Tensor)
    return engine.apply(aten.clamp.Tensor if tensors else aten.clamp.default, named, call.result)


@rule("hardtanh")
def hardtanh(engine: Engine, call: Call) -> Any:
    """hardtanh(x, low, high); relu6(x) for 0 and 6."""
    if (call["min_val"], call["max_val"]) == (0, 6):
        return engine.apply(aten.relu6.default, {"self": call["self"]}, call.result)
    return engine.apply(call.target, call.named, call.result)


@rule("where")
def where(engine: Engine, call: Call) -> Any:
    """where.self(condition, x, y); a number becomes a constant of the result's dtype."""
    if "self" not in call.named:
        return engine.apply(call.target, call.named, call.result)
    named = dict(call.named)
    for key in ("self", "other"):
        if not isinstance(named[key], Tensor):
            named[key] = engine.call(aten.full.default, [], named[key], dtype=call.result.dtype)
    return engine.apply(aten.where.self, named, call.result)


@rule("mm", "bmm", "mv", "dot", "matmul")
def matmul(engine: Engine, call: Call) -> Any:
    """matmul(x, y)"""
    first, second = call.named.values()
    return engine.apply(aten.matmul.default, {"self": first, "other": second}, call.result)


@rule("outer")
def outer(engine: Engine, call: Call) -> Any:
    """mul.Tensor(unsqueeze(x, 1), y)"""
    column = engine.call(aten.unsqueeze.default, call["self"], 1)
    return engine.call(aten.mul.Tensor, column, call["vec2"])


@rule("max", "min")
def maximum(engine: Engine, call: Call) -> Any:
    """maximum(x, y) for two tensors; the reductions stay."""
    if "other" not in call.named:
        return engine.apply(call.target, call.named, call.result)
    pair = {"max": aten.maximum.default, "min": aten.minimum.default}
    return engine.apply(pair[call.name], call.named, call.result)
