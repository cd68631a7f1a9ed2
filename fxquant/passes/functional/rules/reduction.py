"""Reductions.

std, var, std_mean, var_mean   -> the overload `correction`, which says what it does
"""

from __future__ import annotations

from typing import Any

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule


@rule("std", "var", "std_mean", "var_mean")
def variance(engine: Engine, call: Call) -> Any:
    """var.correction(x, dim, correction=1, keepdim=False)"""
    target = getattr(aten, call.name).correction
    named = call.named
    if "unbiased" in named:
        correction: Any = int(named["unbiased"])
    else:
        correction = 1 if named["correction"] is None else named["correction"]
    dim = named.get("dim")
    keepdim = named.get("keepdim", False)
    arguments = {
        "self": named["self"],
        "dim": dim or None,
        "correction": correction,
        "keepdim": keepdim,
    }
    return engine.apply(target, arguments, call.result)
