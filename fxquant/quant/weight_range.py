"""The range of a constant that loses least when it is rounded to few integers.

    weights of a channel: many small values, one of 1.0; 4 bits, -7 to 7
    minmax          scale 1/7: the small ones become 0
    least_squares   scale 0.5/7: the large one is cut to 0.5, the small ones are kept

Cutting the few largest values pays below 8 bits. For each channel some shares of its largest
magnitude are tried, and the one of least squared error is taken. Unlike `mse` it works on the
value at hand and keeps no histogram, so that it is for constants only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxquant.quant.observers import Observer, register_observer

SHARES = torch.linspace(0.3, 1.0, 57).tolist()
"""Shares of the largest magnitude that are tried; the last is that of minmax."""


@register_observer("least_squares")
class LeastSquares(Observer):
    """The symmetric range of least squared error, per tensor or per channel."""

    def update(self, value: Tensor, low: Tensor, high: Tensor) -> None:
        """Take the best range of a value into the range."""
        axis = self.spec.axis
        rows = value.reshape(1, -1) if axis is None else value.transpose(0, axis).flatten(1)
        best = best_magnitude(rows.float(), self.spec.high).reshape(low.shape)
        super().update(value, -best, best)


def best_magnitude(rows: Tensor, levels: int) -> Tensor:
    """The magnitude that `levels` stands for in each row, so that rounding costs least.

    >>> best_magnitude(torch.tensor([[1.0, -3 / 7, 0.0]]), 7).tolist()
    [1.0]
    """
    largest = rows.abs().amax(1)
    best, least = largest.clone(), torch.full_like(largest, torch.inf)
    for share in SHARES:
        magnitude = largest * share
        scale = (magnitude / levels).clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
        rounded = (rows / scale).round_().clamp_(-levels, levels).mul_(scale)
        error = rounded.sub_(rows).square_().sum(1)
        better = error <= least
        best, least = torch.where(better, magnitude, best), torch.where(better, error, least)
    return best
