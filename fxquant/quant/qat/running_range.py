"""The range of a value that changes while the model trains.

Batch extremes are averaged: all batches alike at first, exponentially later, so that a range is
right after one batch and steady after many. Everything is updated in place, because
`DistributedDataParallel`, EMA and captured graphs hold on to the buffers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fxquant.quant.observers import Observer
from fxquant.quant.qat.numbers import Numbers, affine_numbers, symmetric_numbers
from fxquant.quant.qat.ranks import is_shared, shared_extremes
from fxquant.quant.qat.rounding import vectorized
from fxquant.quant.spec import QuantSpec

MOMENTUM = 0.01
"""The least weight of a batch in the average."""


class RunningRange(Observer):
    """Averages the extremes of batches; with the observer `minmax` it keeps the largest seen.

    A batch with NaN or infinity leaves the range as it is: with `GradScaler` such batches are
    ordinary, and the optimizer skips them too.

    Args:
        spec: what the observed value will be quantized to.
        channels: number of channels along `spec.axis`.
    """

    def __init__(self, spec: QuantSpec, channels: int = 1) -> None:
        super().__init__(spec, channels)
        self.momentum = 0.0 if spec.observer == "minmax" else MOMENTUM

    def observe(self, value: Tensor) -> None:
        low, high = self._extremes(value)
        if is_shared():
            low, high = shared_extremes(low, high)
        if vectorized(value) and self.spec.axis is None:
            self._take_numbers(low.item(), high.item())
        else:
            self._take_tensors(low, high)

    def _take_numbers(self, low: float, high: float) -> None:
        count = int(self.batches.item())
        if not math.isfinite(high - low):
            if int(self.bad_batch.item()) < 0:
                self.bad_batch.fill_(count)
            return
        if count:
            low, high = self._averaged(low, high, count)
        self.low.fill_(low)
        self.high.fill_(high)
        self.batches.add_(1)

    def _averaged(self, low: float, high: float, count: int) -> tuple[float, float]:
        before, after = self.low.item(), self.high.item()
        if not self.momentum:
            return min(before, low), max(after, high)
        weight = max(self.momentum, 1 / (count + 1))
        return before + weight * (low - before), after + weight * (high - after)

    def _take_tensors(self, low: Tensor, high: Tensor) -> None:
        first, fine = self.batches == 0, torch.isfinite(high - low).all()
        if self.momentum:
            weight = torch.clamp(1 / (self.batches + 1), min=self.momentum)
            new_low = torch.where(first, low, self.low + weight * (low - self.low))
            new_high = torch.where(first, high, self.high + weight * (high - self.high))
        else:
            new_low, new_high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        bad = torch.where(~fine & (self.bad_batch < 0), self.batches, self.bad_batch)
        self.low.copy_(torch.where(fine, new_low, self.low))
        self.high.copy_(torch.where(fine, new_high, self.high))
        self.bad_batch.copy_(bad)
        self.batches.add_(fine.to(self.batches.dtype))

    def numbers(self) -> Numbers:
        """Scale and zero point of the range, per tensor."""
        compute = symmetric_numbers if self.spec.symmetric else affine_numbers
        return compute(self.low.item(), self.high.item(), self.spec.low, self.spec.high)

    def reset(self) -> None:
        """Forget everything, in place."""
        self.low.fill_(torch.inf)
        self.high.fill_(-torch.inf)
        self.batches.zero_()
        self.bad_batch.fill_(-1)
