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
    # A range of fewer bins than integers is kept exactly: it says nothing of rounding.
    start = levels * width / 2 if least < 0 < most else levels * width
    reach = max(-least, most)
    if not counts.any() or start >= reach:
        return Range(low, high)
    limits = torch.linspace(reach, start, TRIES, dtype=torch.float64)
    first = (HALF + (limits.neg().clamp(min=least) / width).round().to(torch.int64)).clamp(min=0)
    last = (HALF + (limits.clamp(max=most) / width).round().to(torch.int64)).clamp(max=BINS)
    best = int(divergences(counts, first, last, levels).argmin())
    if best == 0:
        return Range(low, high)
    limit = float(limits[best])
    ends = torch.tensor([max(float(low), -limit), min(float(high), limit)])
    return Range(*ends.to(low).unbind())


def divergences(counts: Tensor, first: Tensor, last: Tensor, levels: int) -> Tensor:
    """How far the quantized distribution is from the data's, for each range of bins.

    All occupied bins of an integer have one Q, so sums over bins are differences of running sums
    at the integers' borders.

    Args:
        counts: of all bins, float64 [bins].
        first, last: the bins `first` to `last - 1` are in the range, int64 [ranges].
        levels: how many integers there are.

    Returns:
        Kullback-Leibler divergences in nats, float64 [ranges].
    """
    size = (last - first)[:, None]
    used = size.clamp(max=levels)
    level = torch.arange(levels + 1)
    borders = first[:, None] + (torch.minimum(level, used) * size + used - 1) // used
    mass, occupied, information = (
        _running(part) for part in (counts, (counts > 0).double(), torch.xlogy(counts, counts))
    )
    total, number = mass[borders].diff(dim=1), occupied[borders].diff(dim=1)
    inside = total.sum(1, keepdim=True)
    flat = SMOOTH / size
    q = (1 - SMOOTH) * total / number.clamp(min=1) / inside.clamp(min=1) + flat
    crossed = torch.xlogy(total, q).sum(1)
    own = information[last] - information[first]
    whole = counts.sum()
    # What lies outside is added to the bins at the ends.
    ends = ((first, mass[first], 0), (last - 1, whole - mass[last], used[:, 0] - 1))
    for place, outside, at in ends:
        there = counts[place]
        at = torch.as_tensor(at).expand(len(size))[:, None]
        kept = torch.where(there > 0, q.gather(1, at)[:, 0], flat[:, 0])
        own = own + torch.xlogy(there + outside, there + outside) - torch.xlogy(there, there)
        crossed = crossed + torch.xlogy(outside, kept)
    return (own - crossed) / whole - whole.log()


def _running(values: Tensor) -> Tensor:
    """Sums of all values before each place."""
    return torch.nn.functional.pad(values.cumsum(0), (1, 0))
