"""Operators whose integer form is a table (see `tables`); in float they keep their rules."""

from __future__ import annotations

from typing import Any

from torch._ops import OpOverload

from fxquant.ir.aten import aten

from .registry import RULES, Rule
from .rewriter import NoIntegerForm, Rewriter
from .tables import by_table
from .values import Value

LOOKED_UP: tuple[OpOverload, ...] = (
    aten.celu.default,
    aten.cos.default,
    aten.erf.default,
    aten.exp2.default,
    aten.expm1.default,
    aten.hardshrink.default,
    aten.log10.default,
    aten.log1p.default,
    aten.log2.default,
    aten.log_sigmoid.default,
    aten.mish.default,
    aten.reciprocal.default,
    aten.selu.default,
    aten.sin.default,
    aten.softplus.default,
    aten.softshrink.default,
    aten.tan.default,
    aten.threshold.default,
)
"""Operators of one value whose integer form is a table; the others of a call are numbers."""


def with_table(operator: OpOverload) -> Rule:
    """The operator's rule for floats, and a table for integers."""
    in_float = RULES[operator].function

    def rule(r: Rewriter, x: Value, *args: Any, **kwargs: Any) -> Any:
        if r.out is None:
            return in_float(r, x, *args, **kwargs)
        if not r.integer_only:
            raise NoIntegerForm("a table is slower than float operators")
        return by_table(r, x, lambda reals: operator(reals, *args, **kwargs))

    rule.__name__ = rule.__qualname__ = in_float.__name__
    rule.__doc__ = f"{in_float.__doc__} Integers are looked up."
    return Rule(rule, "quantized")


RULES.update({operator: with_table(operator) for operator in LOOKED_UP})
