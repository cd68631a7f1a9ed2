"""Composite operators that no target knows whole are written with the operators they consist of.

channel_shuffle(x, 2)  -> reshape, permute, reshape
meshgrid(x, y)         -> reshape, expand
"""

from __future__ import annotations

from typing import Any

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule
from fxquant.passes.functional.schema import spread
from fxquant.passes.functional.tail import traced


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(engine: Engine, call: Call) -> Any:
    """The groups become a dimension, which changes places with the channels of a group."""
    source, groups = call["self"], call["groups"]
    batch, channels, *rest = source.shape
    grouped = [batch, groups, channels // groups, *rest]
    order = [0, 2, 1, *range(3, len(grouped))]
    split = engine.call(aten.reshape.default, source, grouped)
    shuffled = engine.call(aten.permute.default, split, order)
    return engine.call(aten.reshape.default, shuffled, [batch, channels, *rest])


@rule(
    "meshgrid", "cartesian_prod", "column_stack", "block_diag", "tensordot", "take_along_dim",
    "rot90", "inner", "chain_matmul", "linalg_multi_dot", "trapezoid",
    "linalg_norm",
)  # fmt: skip
def decomposed(engine: Engine, call: Call) -> Any:
    """What the operator's own implementation calls."""
    args, kwargs = spread(call.target, call.named)
    found = traced(engine, call.target, args, kwargs, pre_dispatch=False, without=call.target)
    return engine.apply(call.target, call.named, call.result) if found is None else found
