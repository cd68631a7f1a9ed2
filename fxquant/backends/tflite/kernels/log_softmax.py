"""LOG_SOFTMAX of 8-bit rows: x less the largest, less the log of the sum of exponentials.

    y = round(s_in / s_out * q - (s_in * max + log(sum exp(s_in * (q - max)))) / s_out) + z

A float32 table of exponentials, summed in order; the reference kernels do it in fixed point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .quantized import QTensor, QType
from .requantize import finish, float32


def log_softmax_integers(x: QTensor, out: QType) -> QTensor:
    """Log softmax over the last axis."""
    values = x.values.to(torch.int64)
    largest = values.amax(-1, keepdim=True)
    table = torch.exp(-x.scale[0] * torch.arange(256, dtype=torch.float32))
    total = _summed(table[largest - values])
    step = float32(out.scale)
    offset = (x.scale[0] * largest + torch.log(total)) / step
    return finish(torch.round(x.scale[0] / step * values - offset).to(torch.int64), out)


def _summed(exponentials: Tensor) -> Tensor:
    """In order: that of a float32 sum is part of the result."""
    total = torch.zeros_like(exponentials[..., :1])
    for column in exponentials.split(1, -1):
        total = total + column
    return total
