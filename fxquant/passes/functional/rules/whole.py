"""Composite operators that no target knows whole are written with the operators they consist of.

channel_shuffle(x, 2)  -> reshape, permute, reshape
meshgrid(x, y)         -> reshape, expand
"""

from __future__ import annotations

from typing import Any

from fxquant.passes.functional.engine import Call, Engine, rule
from fxquant.passes.functional.tail import traced


@rule(
    "channel_shuffle", "native_channel_shuffle", "meshgrid", "cartesian_prod", "column_stack",
    "block_diag", "tensordot", "index_select_backward", "take_along_dim", "rot90", "inner",
    "linear_backward", "chain_matmul", "linalg_multi_dot", "trapezoid", "cov",
)  # fmt: skip
def decomposed(engine: Engine, call: Call) -> Any:
    """What the operator's own implementation calls."""
    return traced(engine, call.target, tuple(call.named.values()), {}, pre_dispatch=False)
