"""The rules by core operator: one short function each, registered by a decorator.

    @legalize(aten.leaky_relu.default)
    def leaky_relu(r: Rewriter, x: Value, slope: float = 0.01) -> Value:
        '''LeakyRelu, its slope an attribute.'''
        return r.emit(ops.leaky_relu, x, alpha=slope)

A rule takes the operator's arguments in the order of its schema, values of the new graph in place
of those of the old one, and gives the value (or the tuple of values) that stands for the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch._ops import OpOverload

from fxquant.errors import RegistrationError

RuleFunction = TypeVar("RuleFunction", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rule:
    """How one core operator is written.

    Attributes:
        function: makes the operators; see the module docstring.
        moves: it only moves data, so that the result stays on the grid of its first operand.
    """

    function: Callable[..., Any]
    moves: bool = False


RULES: dict[OpOverload, Rule] = {}


def legalize(*operators: OpOverload, moves: bool = False) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for core operators; a decorator.

    Args:
        operators: the ATen operators that the rule is for.
        moves: the rule only moves data, whatever they mean.

    Raises:
        RegistrationError: an operator has a rule already.
    """

    def register(function: RuleFunction) -> RuleFunction:
        for operator in operators:
            if operator in RULES:
                old = RULES[operator].function
                raise RegistrationError(
                    f"{operator} has the rule {old.__qualname__} of {old.__module__}; "
                    f"{function.__qualname__} of {function.__module__} wants to be its rule too"
                )
            RULES[operator] = Rule(function, moves)
        return function

    return register
