"""The rules by core operator: one short function each, registered by a decorator.

    @legalize(aten.leaky_relu.default, quantized=True)
    def leaky_relu(r: Rewriter, x: Value, slope: float = 0.01) -> Value:
        '''LEAKY_RELU, its slope an option.'''
        return r.emit(tfl.leaky_relu, x, alpha=slope, out=r.out)

A rule takes the operator's arguments in the order of its schema, values of the new graph in place
of those of the old one, and gives the value (or the tuple of values) that stands for the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch._ops import OpOverload

from fxquant.errors import RegistrationError

Mode = Literal["float", "quantized", "moves"]
RuleFunction = TypeVar("RuleFunction", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rule:
    """How one core operator is written in the dialect.

    Attributes:
        function: makes the operators; see the module docstring.
        mode: "float" (integers are dequantized around it), "quantized" (it knows both kinds) or
            "moves" (it only moves data: the result has the scale of the first operand).
    """

    function: Callable[..., Any]
    mode: Mode = "float"


RULES: dict[OpOverload, Rule] = {}


def legalize(
    *operators: OpOverload, quantized: bool = False, moves: bool = False
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for core operators; a decorator.

    Args:
        operators: the ATen operators that the rule is for.
        quantized: the rule can make the integer form.
        moves: the rule only moves data, whatever they mean.

    Raises:
        RegistrationError: an operator has a rule already.
    """
    mode: Mode = "moves" if moves else "quantized" if quantized else "float"

    def register(function: RuleFunction) -> RuleFunction:
        for operator in operators:
            _add(operator, Rule(function, mode))
        return function

    return register


def _add(operator: OpOverload, rule: Rule) -> None:
    old = RULES.get(operator)
    if old is not None and _place(old) != _place(rule):
        raise RegistrationError(
            f"{operator} has the rule {_place(old)}; {_place(rule)} wants to be its rule too"
        )
    RULES[operator] = rule


def _place(rule: Rule) -> str:
    return f"{rule.function.__module__}.{rule.function.__qualname__}"
