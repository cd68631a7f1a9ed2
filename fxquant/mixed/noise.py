"""Signal and noise of outputs, summed while data stream by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


class Noise:
    """The power of outputs and of their errors, each output of a model apart.

    >>> import torch
    >>> noise = Noise()
    >>> noise.add([torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 0.1])])
    >>> round(noise.sqnr, 3)
    20.0
    """

    def __init__(self) -> None:
        self._signal: list[float] = []
        self._noise: list[float] = []

    def add(self, wanted: Sequence[Tensor], found: Sequence[Tensor]) -> None:
        """Count one batch: the outputs as they should be, and as they are."""
        if not self._signal:
            self._signal, self._noise = [0.0] * len(wanted), [0.0] * len(wanted)
        for place, (want, have) in enumerate(zip(wanted, found, strict=True)):
            exact = want.double()
            self._signal[place] += float(exact.square().sum())
            self._noise[place] += float((have.double() - exact).square().sum())

    @property
    def ratio(self) -> float:
        """Noise power by signal power, the mean over the outputs."""
        ratios = [_ratio(n, s) for n, s in zip(self._noise, self._signal, strict=True)]
        return sum(ratios) / len(ratios) if ratios else 0.0

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise in dB; infinite where nothing differs."""
        return decibels(self.ratio)


def _ratio(noise: float, signal: float) -> float:
    if noise == 0:
        return 0.0
    return noise / signal if signal else math.inf


def decibels(ratio: float) -> float:
    """A ratio of noise to signal power as dB of signal to noise.

    >>> decibels(0.01)
    20.0
    """
    if math.isnan(ratio):
        return -math.inf
    return math.inf if ratio == 0 else -10 * math.log10(ratio)
