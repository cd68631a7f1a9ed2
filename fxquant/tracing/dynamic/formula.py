"""Which function of the named dimensions a number is: `4*batch`, `batch*length`, `length+1`.

A number is seen at several sizes of every dimension; one product of dimensions with a factor and an
offset that gives all of them is taken for its formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

MOST = 3  # dimensions in one product


@dataclass(frozen=True)
class Formula:
    """factor * product of dimensions + offset."""

    names: tuple[str, ...]
    factor: int = 1
    offset: int = 0

    def __call__(self, sizes: Mapping[str, int]) -> int:
        return self.factor * math.prod(sizes[name] for name in self.names) + self.offset

    def __str__(self) -> str:
        product = "*".join(self.names)
        scaled = product if self.factor == 1 else f"{self.factor}*{product}"
        return scaled if not self.offset else f"{scaled}{self.offset:+d}"

    @property
    def name(self) -> str | None:
        """The dimension that this is, if it is just one."""
        plain = self.factor == 1 and self.offset == 0 and len(self.names) == 1
        return self.names[0] if plain else None


def formula_of(values: Sequence[int], sizes: Sequence[Mapping[str, int]]) -> Formula | None:
    """The simplest formula that gives each value at its sizes; None where there is none.

    >>> formula_of([6, 12, 18], [{"batch": 1}, {"batch": 2}, {"batch": 3}])
    Formula(names=('batch',), factor=6, offset=0)
    """
    found = [
        formula
        for count in range(1, MOST + 1)
        for names in combinations(sizes[0], count)
        if (formula := _fitted(names, values, sizes)) is not None
    ]
    return min(found, key=lambda formula: (formula.offset != 0, len(formula.names)), default=None)


def _fitted(
    names: tuple[str, ...], values: Sequence[int], sizes: Sequence[Mapping[str, int]]
) -> Formula | None:
    products = [math.prod(each[name] for name in names) for each in sizes]
    other = next((n for n, product in enumerate(products) if product != products[0]), None)
    if other is None:
        return None
    factor, rest = divmod(values[other] - values[0], products[other] - products[0])
    if rest:
        return None
    formula = Formula(names, factor, values[0] - factor * products[0])
    good = factor and all(formula(size) == v for v, size in zip(values, sizes, strict=True))
    return formula if good else None
