"""Comparing integers of different scales: both multiplied by their scale over 256 steps."""

from __future__ import annotations

import torch
from torch import Tensor

from .fixed_point import multiplier, scale_twice
from .quantized import QTensor

_SPARE_BITS = 8


def comparable(x: QTensor, y: QTensor) -> tuple[Tensor, Tensor]:
    """Integers that compare as the reals do, to the runtime's precision."""
    left, right = (
        scale_twice(value.centered() << _SPARE_BITS, multiplier(value.scale.to(torch.float64)[0]))
        for value in (x, y)
    )
    return left, right
