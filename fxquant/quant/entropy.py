"""The range whose integers keep the most of a distribution: least Kullback-Leibler divergence.

    P   the values in the range; what lies outside is counted at its ends
    Q   the same values after quantization: each integer's count, spread over the bins it stands for

The range is tried at some widths around 0, never wider than the data, and the one with the least
divergence of Q from P wins (Migacz, "8-bit inference with TensorRT", 2017). The bin at 0 is left
out, as there: after a ReLU it holds most values, and every range represents 0 exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fxquant.quant.histogram import BINS, HALF, Histogram

TRIES = 96
"""Widths that are tried, evenly from a bin for each integer to the whole range."""

SMOOTH = 1e-4
"""The share of Q that is spread evenly, so that no bin of P meets a 0."""


class Range(NamedTuple):
    """The ends of a range, float32."""

    low: Tensor
    high: Tensor


def least_divergence(histogram: Histogram, low: Tensor, high: Tensor, levels: int) -> Range:
    """The range between `low` and `high` whose integers keep the most of the distribution.

    Args:
        histogram: of the data.
        low, high: their extremes; the result lies within.
        levels: how many integers there are.
    """
    counts = histogram.counts.double().cpu()
    counts[HALF] = 0
    width = float(histogram.width)
    least, most = min(float(low), 0.0), max(float(high), 0.0)
    whole = Range(low, high)
    # A range of fewer bins than integers is kept exactly: it says nothing of rounding.
    start = levels * width / 2 if least < 0 < most else levels * width
    reach = max(-least, most)
    if not counts.any() or start >= reach:
        return whole
    best, found = float("inf"), whole
    for limit in torch.linspace(reach, start, TRIES, dtype=torch.float64).tolist():
        first = max(0, HALF + round(max(least, -limit) / width))
        last = min(BINS, HALF + round(min(most, limit) / width))
        divergence = _divergence(counts, first, last, levels)
        if divergence < best:
            best = divergence
            ends = torch.tensor([max(float(low), -limit), min(float(high), limit)])
            found = Range(*ends.to(low).unbind())
    return found


def _divergence(counts: Tensor, first: int, last: int, levels: int) -> float:
    """The divergence of the quantized bins `first` to `last` from the data."""
    inside = counts[first:last]
    wanted = inside.clone()
    wanted[0] += counts[:first].sum()
    wanted[-1] += counts[last:].sum()
    size = inside.numel()
    level = torch.arange(size) * min(levels, size) // size
    sums = torch.zeros(min(levels, size), dtype=torch.float64)
    occupied = (inside > 0).double()
    total = sums.index_add(0, level, inside)
    number = sums.index_add(0, level, occupied).clamp(min=1)
    kept = occupied * (total / number)[level]
    p = wanted / wanted.sum()
    q = (1 - SMOOTH) * kept / kept.sum().clamp(min=1) + SMOOTH / size
    return float(torch.special.xlogy(p, p / q).sum())
