"""LOGISTIC and TANH of 16-bit values: one table of sigmoids, straight lines between them.

    table[n] = 2**16 * sigmoid(n / 24)           n = 0 .. 254, and 2**16 - 1 at the end
    q_out    = 2**15 * f(x), rounded             tanh(x) = 2 * sigmoid(2 * x) - 1

The input is rescaled to steps of 1/12288. With an input scale of exactly 2**-12 (TANH: 2**-11 too)
the runtime's plain kernels use another routine, less exact, which is not written out here: that
scale is refused, and rules avoid it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .quantized import QTensor, QType, quantized

_STEPS_OF_ONE = 3 * 4096
_MOST_SHIFT = 31
_END = 65535


def logistic_int16(x: QTensor, out: QType) -> QTensor:
    """The integers of sigmoid(x), in steps of 2**-15."""
    steps = _rescaled(x)
    found = _between(steps.abs(), 9, 0x7FFF << 10)
    mirrored = torch.where(steps >= 0, found, (1 << 25) - found - 1)
    return quantized((mirrored + (1 << 9)) >> 10, out)


def tanh_int16(x: QTensor, out: QType) -> QTensor:
    """The integers of tanh(x), in steps of 2**-15."""
    steps = _rescaled(x)
    found = _between(steps.abs(), 8, 0xFFFF << 8) - (1 << 23)
    mirrored = torch.where(steps >= 0, found, -found - 1)
    return quantized((mirrored + (1 << 7)) >> 8, out)


def _rescaled(x: QTensor) -> Tensor:
    """The reals in steps of 1/12288, by a multiplier of 15 bits that is cut off, not rounded."""
    factor, shift = x.one_scale * _STEPS_OF_ONE, 0
    while factor <= 32767 / 2 and shift < _MOST_SHIFT:
        factor, shift = 2 * factor, shift + 1
    half = 1 << (shift - 1) if shift else 0
    return (x.values.to(torch.int64) * int(factor) + half) >> shift


def _between(magnitude: Tensor, bits: int, end: int) -> Tensor:
    """The table at magnitude / 2**bits, with `bits` more binary digits; `end` behind it."""
    table = _table()
    place = magnitude >> bits
    inside = place.clamp(max=254)
    line = table[inside + 1] - table[inside]
    found = (table[inside] << bits) + (magnitude & ((1 << bits) - 1)) * line
    return torch.where(place >= 255, end, found)


def _table() -> Tensor:
    """Each entry is raised by half of what the line behind it lacks in its middle."""
    exact = torch.sigmoid(torch.arange(513, dtype=torch.float64) / 48) * 65536
    here, middle, there = exact[:-2:2], exact[1::2], exact[2::2]
    raised = here + (middle - (here + there) / 2) / 2
    raised[-1] = _END
    return torch.round(raised).to(torch.int64)
