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
        product: sum of products of expected and found values.
        power: sum of squares of the found values.
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

    def add(self, other: Difference) -> None:
        """Take the difference of further values in."""
        self.count += other.count
        self.equal += other.equal
        self.steps = max(self.steps, other.steps)
        self.relative = max(self.relative, other.relative)
        self.signal += other.signal
        self.noise += other.noise
        self.product += other.product
        self.power += other.power


def difference_between(
    found: Tensor, expected: Tensor, *, zero_point: int = 0, magnitude: float = 0.0
) -> Difference:
    """Compare two tensors of one shape; integers count from their zero point.

    Floats are compared relative to the largest expected value, or to `magnitude` where that is
    larger: what was added up to a result near zero decides how exact the result can be.

    >>> difference = difference_between(torch.tensor([1, 2]), torch.tensor([1, 4]))
    >>> difference.agreement, difference.steps
    (0.5, 2)
    """
    count = expected.numel()
    second = expected.to(torch.float64) - zero_point
    if same_bits(found, expected):
        power = float(_finite(second).square().sum())
        return Difference(count, count, signal=power, power=power, product=power)
    first = found.to(torch.float64) - zero_point
    gap = (first - second).abs()
    if expected.dtype.is_floating_point:
        alike, steps = _agreement(first, second, gap, magnitude), 0
    else:
        alike, steps = (int((gap == 0).sum()), 0.0), int(gap.max())
    first, second = _finite(first), _finite(second)
    return Difference(
        count,
        equal=alike[0],
        steps=steps,
        relative=alike[1],
        signal=float(second.square().sum()),
        noise=float((first - second).square().sum()),
        product=float((first * second).sum()),
        power=float(first.square().sum()),
    )


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are the same; NaN equals nothing, itself included."""
    return found.dtype == expected.dtype and torch.equal(found, expected)


def _agreement(first: Tensor, second: Tensor, gap: Tensor, magnitude: float) -> tuple[int, float]:
    """How many floats agree, and the largest difference over the largest finite value."""
    alike = (first == second) | (first.isnan() & second.isnan())
    gap = torch.where(alike, 0.0, gap.nan_to_num(math.inf, math.inf))
    largest = max(float(_finite(second).abs().max()), magnitude)
    worst = float(gap.max())
    relative = worst / largest if largest else math.inf if worst else 0.0
    return int((gap <= FLOAT_TOLERANCE * largest).sum()), relative


def _finite(values: Tensor) -> Tensor:
    return values.nan_to_num(0.0, 0.0, 0.0)
