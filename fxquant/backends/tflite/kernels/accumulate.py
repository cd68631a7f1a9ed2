"""Exact accumulators of quantized convolutions and matrix products.

    accumulator = bias + sum (x - zero_point) * w

Sums of integers are exact in floating point as long as no partial sum leaves the mantissa. The
bound is max|x - zero_point| * max over channels of sum|w|: below 2**24 float32 computes it; above,
the input channels are split until it does, or float64 takes over (int16 activations).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .quantized import QTensor

Linear = Callable[[Tensor, Tensor], Tensor]  # (x, weights) -> sums, linear in both

_FLOAT32_EXACT = float(2**24)
_MOST_PARTS = 16


def exact_sums(x: Tensor, weights: Tensor, largest: int, apply: Linear, split: bool) -> Tensor:
    """`apply` of integers, exact, in a dtype that holds it.

    Args:
        x: centered activations as float32, channels in dimension 1.
        weights: centered weights, output channels in dimension 0, input channels in dimension 1.
        largest: the largest magnitude in x.
        apply: a convolution or product of x and weights.
        split: whether the input channels may be split into parts whose results are added.
    """
    magnitudes = weights.to(torch.float32).abs()
    sums = magnitudes.sum(tuple(range(1, weights.dim())), dtype=torch.float64)
    bound = largest * float(sums.max()) if sums.numel() else 0.0
    if bound < _FLOAT32_EXACT:
        return _float32(x, weights, apply)
    channels = weights.shape[1]
    parts = int(bound // _FLOAT32_EXACT) + 1
    if not split or parts > min(_MOST_PARTS, channels):
        return apply(x.to(torch.float64), weights.to(torch.float64))
    size = -(-channels // parts)
    total: Tensor | None = None
    for part, columns in zip(x.split(size, 1), weights.split(size, 1), strict=True):
        found = exact_sums(part, columns, largest, apply, split).to(torch.float64)
        total = found if total is None else total.add_(found)
    assert total is not None
    return total


def _float32(x: Tensor, weights: Tensor, apply: Linear) -> Tensor:
    """NNPACK would transform 3x3 convolutions (Winograd), which is not exact."""
    with torch.backends.nnpack.flags(enabled=False):
        return apply(x.to(torch.float32), weights.to(torch.float32))


def centered_reals(x: QTensor) -> tuple[Tensor, int]:
    """values - zero_point as float32, and the largest magnitude among them."""
    low, high = (int(bound) for bound in x.values.aminmax()) if x.values.numel() else (0, 0)
    largest = max(abs(low - x.offset), abs(high - x.offset))
    return x.values.to(torch.float32).sub_(x.offset), largest
