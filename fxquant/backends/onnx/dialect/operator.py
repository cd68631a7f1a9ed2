"""What a function must say of itself to be an operator of the file.

    @operator("ReduceMean", attribute_before={"axes": 18})
    def reduce_mean(x: Tensor, axes: Sizes, *, keepdims: int = 1) -> Tensor: ...

Positional parameters are the operator's inputs, in order: tensors, None for one that is left out,
tuples and numbers for constants that the writer makes. Keyword parameters are its attributes, with
the defaults of the standard. The body computes in torch what the runtime computes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fxquant.errors import RegistrationError

OperatorFunction = TypeVar("OperatorFunction", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operator:
    """An operator of the standard.

    Attributes:
        name: its type in the file.
        since: the opset that has it in the form used here.
        inputs: the names of its inputs, in order.
        attribute_before: inputs that are attributes in opsets before the one given.
        hidden: keyword parameters that are no attributes.
        integers: inputs whose numbers are int64, whatever the dtype of the data.
        variadic: whether the one input stands for any number.
    """

    name: str
    since: int
    inputs: tuple[str, ...]
    attribute_before: Mapping[str, int] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    variadic: bool = False


OPERATORS: dict[str, Operator] = {}
"""Every operator of the dialect by the name of its function."""

DEFAULTS: dict[str, dict[str, Any]] = {}
"""The attributes of each operator with their defaults."""


def operator(
    name: str,
    *,
    since: int = 13,
    attribute_before: Mapping[str, int] | None = None,
    hidden: tuple[str, ...] = (),
    integers: tuple[str, ...] = (),
    variadic: bool = False,
) -> Callable[[OperatorFunction], OperatorFunction]:
    """Make a function an operator of the dialect; a decorator.

    Raises:
        RegistrationError: two functions have one name.
    """

    def register(function: OperatorFunction) -> OperatorFunction:
        called = function.__name__
        if called in OPERATORS:
            raise RegistrationError(f"the dialect has two operators {called}")
        parameters = inspect.signature(function).parameters.values()
        inputs = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        before = attribute_before or {}
        OPERATORS[called] = Operator(name, since, inputs, before, hidden, integers, variadic)
        usual = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        DEFAULTS[called] = usual
        function.option_defaults = usual  # type: ignore[attr-defined]
        return function

    return register


def operator_of(function: Callable[..., Any]) -> Operator:
    """What a function of the dialect is in the file."""
    return OPERATORS[function.__name__]
