"""The scale and zero point with the least expected squared error over a histogram.

Clipping counts more than rounding (`CLIPPING`).

A grid of integers times a scale always holds 0, so the error of rounding depends on the scale
alone and the error of clipping on the two ends alone. Both are summed once per scale; every pair
(scale, zero point) is then looked up. The range that clips nothing is among the candidates and
wins ties.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxquant.quant.arithmetic import Parameters, stored_scale, symmetric_zero_point
from fxquant.quant.histogram import HALF, Histogram, centers

FEWEST = 1 / 32
"""The smallest scale tried, relative to the one that clips nothing."""

CLIPPING = 4.0
"""Errors of rounding are independent and cancel in the sums that follow; those of clipping all
point inwards and do not. On pretrained nets a weight of 4 keeps the most predictions, 1 and 16
keep fewer."""

COARSE, FINE, ZERO_POINTS = 28, 20, 256


class ErrorTable:
    """Expected squared error of a histogram for any scale and zero point.

    Args:
        histogram: the data.
        qmin, qmax: the integers of the grid.
    """

    def __init__(self, histogram: Histogram, qmin: int, qmax: int) -> None:
        self.qmin, self.qmax = qmin, qmax
        self.width = float(histogram.width)
        occupied = histogram.counts.nonzero()
        self.first = int(occupied[0]) if len(occupied) else 0
        bins = slice(self.first, int(occupied[-1]) + 1 if len(occupied) else 1)
        self.center = centers(histogram)[bins]
        self.mass = histogram.counts[bins].double() / histogram.counts.sum().clamp(min=1)
        moments = torch.stack([self.mass, self.mass * self.center, self.mass * self.center**2])
        self.moments = torch.nn.functional.pad(moments.cumsum(1), (1, 0))

    def errors(self, scale: Tensor, zero_point: Tensor) -> Tensor:
        """The error of every scale [s] with its zero points [s, z]."""
        low = (self.qmin - zero_point) * scale[:, None]
        high = (self.qmax - zero_point) * scale[:, None]
        first, last = self._place(low), self._place(high)
        rounding = torch.nn.functional.pad(self._rounding(scale).cumsum(1), (1, 0))
        inside = rounding.gather(1, last) - rounding.gather(1, first)
        below = self._clipping(self.moments[:, first], low)
        above = self._clipping(self.moments[:, -1, None, None] - self.moments[:, last], high)
        return inside.clamp(min=0) + CLIPPING * (below + above)

    def _place(self, edge: Tensor) -> Tensor:
        place = (edge / self.width + (HALF - self.first)).round()
        return place.clamp(0, len(self.mass)).to(torch.int64)

    def _rounding(self, scale: Tensor) -> Tensor:
        """Error of each bin at each scale: that of its middle plus the spread within the bin."""
        step = scale[:, None]
        error = (self.center - step * torch.round(self.center / step)) ** 2 + self.width**2 / 12
        # Bins wider than the grid say nothing of where in a step their values lie.
        return self.mass * torch.where(step >= 2 * self.width, error, step**2 / 12)

    def _clipping(self, moments: Tensor, edge: Tensor) -> Tensor:
        mass, first, second = moments
        squared: Tensor = second - 2 * edge * first + edge**2 * mass
        return squared.clamp(min=0)


def least_squares(
    histogram: Histogram, whole: Parameters, qmin: int, qmax: int, symmetric: bool
) -> Parameters:
    """Scale and zero point of least expected squared error.

    Args:
        histogram: the data.
        whole: the parameters that clip nothing; the result is never worse than these.
        qmin, qmax: the integers of the grid.
        symmetric: keep the zero point in the middle.
    """
    table = ErrorTable(histogram, qmin, qmax)
    best = _Best(table, whole)
    ratios = torch.logspace(0, 1, COARSE, base=FEWEST, dtype=torch.float64)
    best.search(ratios, _zero_points(qmin, qmax, symmetric))
    step = float(ratios[1])
    around = torch.logspace(1, -1, FINE, base=step, dtype=torch.float64) * best.ratio
    best.search(around.clamp(max=1.0), _zero_points(qmin, qmax, symmetric))
    return best.parameters


def _zero_points(qmin: int, qmax: int, symmetric: bool) -> Tensor:
    if symmetric:
        return torch.tensor([symmetric_zero_point(qmin, qmax)], dtype=torch.float64)
    count = min(ZERO_POINTS, qmax - qmin + 1)
    return torch.linspace(qmin, qmax, count, dtype=torch.float64).round()


class _Best:
    """The best candidate so far; starts with the one that clips nothing."""

    def __init__(self, table: ErrorTable, whole: Parameters) -> None:
        self.table = table
        self.whole = float(whole.scale)
        self.parameters = whole
        self.ratio = 1.0
        start = whole.scale.double().reshape(1)
        self.error = float(table.errors(start, whole.zero_point.double().reshape(1, 1)))

    def search(self, ratios: Tensor, zero_points: Tensor) -> None:
        scale = stored_scale(self.whole * ratios)
        device = self.table.center.device
        points = zero_points.to(device).expand(len(scale), -1)
        errors = self.table.errors(scale.double().to(device), points)
        place = int(errors.argmin())
        if float(errors.flatten()[place]) < self.error:
            row, column = divmod(place, points.shape[1])
            self.error, self.ratio = float(errors[row, column]), float(ratios[row])
            self.parameters = Parameters(scale[row], points[row, column].to("cpu", torch.int32))
