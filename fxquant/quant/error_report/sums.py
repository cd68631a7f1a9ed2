"""How far one value is from another, as running sums over any number of batches.

>>> sums = ErrorSums()
>>> sums.add(torch.tensor([1.0, 2.1]), torch.tensor([1.0, 2.0]))
>>> round(sums.sqnr_db, 1), round(sums.cosine, 4), round(sums.max_abs, 3)
(27.0, 0.9998, 0.1)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 1 << 16
"""Values compared at once: scratch memory stays in the cache."""


def _pieces(value: Tensor) -> Iterator[Tensor]:
    for piece in value.reshape(-1).split(PIECE):
        yield piece.float() if piece.dtype != torch.float64 else piece


@dataclass
class ErrorSums:
    """The error of a quantized value, summed up.

    Attributes:
        count: values compared.
        signal: sum of squares of the float values.
        noise: sum of squares of the differences.
        product: sum of products of float and quantized values.
        power: sum of squares of the quantized values.
        max_abs: the largest difference.
    """

    count: int = 0
    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    power: float = 0.0
    max_abs: float = 0.0

    def add(self, found: Tensor, wanted: Tensor) -> None:
        """Take in a quantized value and the float value that it stands for; of one shape."""
        pairs = zip(_pieces(found), _pieces(wanted), strict=True)
        for first, second in pairs:
            difference = first - second
            products = (second @ second, difference @ difference, first @ second, first @ first)
            signal, noise, product, power = torch.stack(products).tolist()
            self.count += second.numel()
            self.signal += signal
            self.noise += noise
            self.product += product
            self.power += power
            if noise:
                self.max_abs = max(self.max_abs, float(difference.abs().max()))

    @property
    def noise_to_signal(self) -> float:
        """Noise power over signal power; infinite where there is noise and no signal."""
        if self.noise == 0:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise in decibels; infinite where nothing differs."""
        ratio = self.noise_to_signal
        if ratio == 0:
            return math.inf
        return -math.inf if math.isinf(ratio) else -10 * math.log10(ratio)

    @property
    def cosine(self) -> float:
        """The cosine between the two vectors."""
        length = math.sqrt(self.signal * self.power)
        return self.product / length if length else float(self.noise == 0)
