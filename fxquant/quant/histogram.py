"""A histogram of fixed size whose range doubles: bounded state for any amount of data.

The bins cover [-reach, reach) with a border exactly at 0. When a value lies outside, `reach`
doubles as often as needed and each bin is added to the one that covers it, so nothing is lost but
resolution. All steps are tensor operations: on an accelerator no batch waits for the host.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 4096
HALF = BINS // 2
SAMPLES, SAMPLES_OF_ONE = 1 << 17, 1 << 14
"""Most values counted of a batch, and of one sample. Of more, every n-th is counted, n times; the
extremes are exact all the same."""

PENDING = 1 << 16
"""Values of several batches that are counted at once."""

CHUNK = 1 << 16
"""Values binned at once on the CPU: scratch memory stays in the cache."""

LEAST_REACH = 2.0**-100


class Histogram(NamedTuple):
    """Counts (int64 [BINS]) over [-reach, reach) (float32 [])."""

    counts: Tensor
    reach: Tensor

    @property
    def width(self) -> Tensor:
        """The width of one bin."""
        return self.reach / HALF


def empty_histogram() -> Histogram:
    """A histogram that has seen nothing."""
    return Histogram(torch.zeros(BINS, dtype=torch.int64), torch.zeros(()))


def grown(histogram: Histogram, magnitude: Tensor) -> Histogram:
    """The histogram with a reach that holds `magnitude`.

    >>> counts = torch.zeros(BINS, dtype=torch.int64).index_fill_(0, torch.tensor([0, HALF]), 5)
    >>> wider = grown(Histogram(counts, torch.tensor(1.0)), torch.tensor(3.0))
    >>> float(wider.reach), wider.counts.nonzero().flatten().tolist(), int(wider.counts.sum())
    (4.0, [1536, 2048], 10)
    """
    start = torch.where(histogram.reach > 0, histogram.reach, magnitude.clamp(min=LEAST_REACH))
    doublings = torch.log2(magnitude / start).ceil().clamp(min=0).nan_to_num(0.0, 0.0)
    if doublings.device.type == "cpu" and float(doublings) == 0:
        return Histogram(histogram.counts, start)
    return _folded(histogram.counts, start, doublings)


def _folded(counts: Tensor, reach: Tensor, doublings: Tensor) -> Histogram:
    shift = doublings.clamp(max=31).to(torch.int64)
    place = torch.arange(BINS, device=counts.device) - HALF
    # The arithmetic shift rounds down, so that negative bins too go to the bin that covers them.
    folded = torch.zeros_like(counts).index_add_(0, (place >> shift) + HALF, counts)
    return Histogram(folded, reach * torch.exp2(doublings))


class Sample(NamedTuple):
    """Every `step`-th value of a batch."""

    values: Tensor
    step: int


def sampled(values: Tensor) -> Sample:
    """A copy of the values of a batch that are counted."""
    flat = values.reshape(-1)
    most = min(SAMPLES, SAMPLES_OF_ONE * (values.shape[0] if values.dim() else 1))
    # An odd step, so that it does not walk down one column of an image.
    step = max(1, flat.numel() // most) | 1
    return Sample(flat[::step].clone(), step)


def counted(histogram: Histogram, sample: Sample) -> Histogram:
    """The histogram with a sample counted; all its values must lie within the reach."""
    count = _count_on_host if sample.values.device.type == "cpu" else _count_on_device
    counts = count(sample.values, histogram.reach)
    return histogram._replace(counts=torch.add(histogram.counts, counts, alpha=sample.step))


def _count_on_host(flat: Tensor, reach: Tensor) -> Tensor:
    factor = HALF / float(reach)
    if flat.numel() <= CHUNK:
        return _counts_of_part(flat, factor)
    parts = (_counts_of_part(part, factor) for part in flat.split(CHUNK))
    return sum(parts, next(parts))


def _counts_of_part(flat: Tensor, factor: float) -> Tensor:
    places = torch.mul(flat, factor).add_(HALF).clamp_(0, BINS - 1)
    return torch.bincount(places.to(torch.int32), minlength=BINS)


def _count_on_device(flat: Tensor, reach: Tensor) -> Tensor:
    # bincount would ask the device for the largest value; histc with given limits does not.
    places = (flat.float() * (HALF / reach)).clamp_(-HALF, HALF - 0.5)
    return torch.histc(places, BINS, -HALF, HALF).to(torch.int64)


def merged(first: Histogram, second: Histogram) -> Histogram:
    """One histogram of what two have seen, at the larger reach and the coarser bins.

    Reaches that are not a power of two apart are brought together by counting each bin at its
    middle.
    """
    wide, narrow = (first, second) if first.reach >= second.reach else (second, first)
    if not narrow.counts.any():
        return wide
    centers = (torch.arange(BINS, device=narrow.counts.device) - HALF + 0.5) * (
        narrow.reach / wide.reach
    )
    place = centers.floor().to(torch.int64) + HALF
    return wide._replace(counts=wide.counts.index_add(0, place, narrow.counts))


def centers(histogram: Histogram) -> Tensor:
    """The middle of each bin, float64."""
    place = torch.arange(BINS, dtype=torch.float64, device=histogram.counts.device)
    return (place - HALF + 0.5) * histogram.width.double()


def quantiles(histogram: Histogram, below: float, above: float) -> tuple[Tensor, Tensor]:
    """The values below which the fractions `below` and `above` of the data lie."""
    total = histogram.counts.cumsum(0).double()
    wanted = torch.tensor([below, above], dtype=torch.float64, device=total.device) * total[-1]
    place = torch.searchsorted(total, wanted).clamp(max=BINS - 1)
    before = torch.where(place > 0, total[(place - 1).clamp(min=0)], 0.0)
    inside = (wanted - before) / histogram.counts[place].clamp(min=1)
    value = (place - HALF + inside.clamp(0, 1)) * histogram.width.double()
    return value[0].float(), value[1].float()
