"""How far two tensors are apart, summed over any number of batches in bounded memory.

integers   the fraction of equal values, and the largest difference in steps
floats     the fraction of agreeing values, and the largest difference over the largest value
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT_TOLERANCE = 1e-4


@dataclass
class Difference:
    """What is known of the difference so far.

    Attributes:
        count: values compared.
        equal: values that agree: integers exactly, floats within the tolerance.
        steps: the largest difference of integers.
        relative: the largest difference of floats over the largest magnitude in its tensor.
        signal: sum of squares of the expected values.
        noise: sum of squares of the differences.
    """

    count: int = 0
    equal: int = 0
    steps: int = 0
    relative: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    power: float = 0.0

    @property
    def agreement(self) -> float:
        """The fraction of values that agree."""
        return self.equal / self.count if self.count else 1.0

    @property
    def sqnr(self) -> float:
        """Signal to noise in decibels; infinite where nothing differs."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """The cosine between the two vectors."""
        length = math.sqrt(self.signal * self.power)
        return self.product / length if length else 1.0

    def add(self, found: Tensor, expected: Tensor, *, zero_point: int = 0) -> bool:
        """Compare two tensors of one shape; whether they are the same, bit by bit.

        >>> difference = Difference()
        >>> difference.add(torch.tensor([1, 2]), torch.tensor([1, 4]))
        False
        >>> difference.agreement, difference.steps
        (0.5, 2)
        """
        self.count += expected.numel()
        if _same(found, expected):
            self.equal += expected.numel()
            self._add_powers(expected.to(torch.float64) - zero_point, None)
            return True
        first = found.to(torch.float64) - zero_point
        second = expected.to(torch.float64) - zero_point
        gap = (first - second).abs()
        if expected.dtype.is_floating_point:
            self._add_floats(first, second, gap)
        else:
            self.equal += int((gap == 0).sum())
            self.steps = max(self.steps, int(gap.max()))
        self._add_powers(second, first)
        return False

    def _add_floats(self, first: Tensor, second: Tensor, gap: Tensor) -> None:
        alike = (first == second) | (first.isnan() & second.isnan())
        gap = torch.where(alike, 0.0, gap.nan_to_num(math.inf, math.inf))
        finite = second[second.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0
        relative = float(gap.max()) / largest if largest else math.inf
        self.equal += int((gap <= FLOAT_TOLERANCE * largest).sum())
        self.relative = max(self.relative, relative)

    def _add_powers(self, expected: Tensor, found: Tensor | None) -> None:
        expected = expected.nan_to_num(0.0, 0.0, 0.0)
        found = expected if found is None else found.nan_to_num(0.0, 0.0, 0.0)
        self.signal += float(expected.square().sum())
        self.power += float(found.square().sum())
        self.product += float((expected * found).sum())
        self.noise += float((expected - found).square().sum())


def _same(found: Tensor, expected: Tensor) -> bool:
    return found.dtype == expected.dtype and torch.equal(found, expected)
