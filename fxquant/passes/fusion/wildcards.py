"""What may stand as the default of a pattern's parameter, instead of a tensor.

    def pattern(x, weight, scale=any_number, mask=optional, inner=either(True, False)): ...

A parameter without default is a tensor: any value of the graph, a stored one too. A wildcard is a
literal; what it stood for is handed to check and replacement. `optional` is a tensor or None, and
`either` one of several choices; the pattern is traced once for each, so that plain `if`s make
nodes optional.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

RELATIVE = 1e-6
"""How far a literal may be from that of the pattern: 0.70710678 is 1 / sqrt(2)."""


@dataclass(frozen=True)
class Wildcard:
    """A literal that may have any value of some types.

    Attributes:
        title: the name, as it stands in messages.
        kinds: the Python types of the values.
        samples: two values with which the pattern can be traced.
    """

    title: str
    kinds: tuple[type, ...] = field(repr=False)
    samples: tuple[Any, Any] = field(repr=False)

    def __call__(self, first: Any, second: Any) -> Any:
        """The wildcard with samples of your own, for operators that refuse the usual ones."""
        return Wildcard(self.title, self.kinds, (first, second))

    @property
    def whole(self) -> bool:
        """Whether it stands for lists too, and not for one of their items."""
        return object in self.kinds

    def accepts(self, value: object) -> bool:
        """Whether a value is of the wildcard's types; True and False are no numbers."""
        if isinstance(value, bool) and bool not in self.kinds:
            return False
        return isinstance(value, self.kinds)


# Typed Any, so that they can be the default of a parameter of any type.
any_int: Any = Wildcard("any_int", (int,), (1, 2))
any_float: Any = Wildcard("any_float", (float, int), (0.8125, 0.6875))
any_number: Any = Wildcard("any_number", (float, int), (0.8125, 0.6875))
any_bool: Any = Wildcard("any_bool", (bool,), (False, True))
any_literal: Any = Wildcard("any_literal", (object,), (1, 2))

ANYTHING = Wildcard("anything", (object,), (None, None))
"""A literal that is computed from a wildcard: looked at when the pattern is traced once more."""


@dataclass(frozen=True)
class Either:
    """One of several choices, each a form of the pattern of its own."""

    choices: tuple[Any, ...]


@dataclass(frozen=True)
class TensorChoice:
    """The choice of a tensor among others."""


def either(*choices: Any) -> Any:
    """A parameter that is one of the choices: values, wildcards, or `optional`'s tensor."""
    return Either(choices)


optional: Any = Either((TensorChoice(), None))


@dataclass(frozen=True)
class Hole:
    """The place of a wildcard in a traced pattern."""

    name: str
    kind: Wildcard

    def __str__(self) -> str:
        return f"{self.name}={self.kind.title}"


SEQUENCES, NUMBERS = (list, tuple), (int, float)
"""As tuples: `list | tuple` would be put together again at every question."""


def same_literal(wanted: object, found: object) -> bool:
    """Whether two literals are the same; numbers up to rounding, True is not 1.

    >>> same_literal(3, 3.0), same_literal(True, 1), same_literal([1, 2], (1, 2))
    (True, False, True)
    """
    if isinstance(wanted, SEQUENCES) and isinstance(found, SEQUENCES):
        pairs = zip(wanted, found, strict=False)
        return len(wanted) == len(found) and all(same_literal(a, b) for a, b in pairs)
    if is_number(wanted) and is_number(found):
        return same_number(float(wanted), float(found))  # type: ignore[arg-type]
    return type(wanted) is type(found) and wanted == found


def is_number(value: object) -> bool:
    """Whether a value is an int or a float, and not a bool."""
    return isinstance(value, NUMBERS) and not isinstance(value, bool)


def same_number(wanted: float, found: float) -> bool:
    """Whether two numbers are the same up to rounding."""
    return wanted == found or math.isclose(wanted, found, rel_tol=RELATIVE)
