"""SOFTMAX of 16-bit rows: exponentials and the reciprocal of their sum by interpolated tables.

    e_i = table of exp on [-10, 0] at x_i - max, Q0.15        sum in Q16.15
    y_i = e_i * table of 1 / (1 + m), m the sum's mantissa - 1, shifted back and rounded

All sets of kernels compute this alike; differences below -10 count as e^-10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fixed_point import multiplier, scale_twice
from .interpolation import Function, look_up, samples
from .quantized import QTensor, QType, quantized
from .requantize import RANGES

_LOW, _HIGH = RANGES[torch.int16]
_DEEPEST = 10.0
_RESULTS = QType("int16", 2.0 / 65535.0, 0)
_EXPONENTS = QType("int16", _DEEPEST / 65535.0, _HIGH)
_MANTISSAS = QType("int16", 1.0 / 65535.0, _LOW)


def softmax_int16(x: QTensor, beta: float, out: QType) -> QTensor:
    """Softmax over the last axis, in steps of 2**-15."""
    exponentials = _exponentials(x, beta)
    total = exponentials.sum(-1, keepdim=True)
    bits = torch.frexp(total.to(torch.float64))[1].to(torch.int64)
    mantissa = ((total << (31 - bits)) + (1 << 13)) >> 14  # Q1.16 of [1, 2)
    place = (mantissa - (1 << 16) + _LOW).clamp(_LOW, _HIGH)
    reciprocal = look_up(place, _table(lambda m: 1 / (1 + m), _MANTISSAS))
    shift = bits - 1
    rounded = (exponentials * reciprocal + (torch.ones_like(shift) << (shift - 1))) >> shift
    return quantized(rounded.clamp(0, _HIGH), out)


def _exponentials(x: QTensor, beta: float) -> Tensor:
    values = x.values.to(torch.int64)
    difference = values - values.amax(-1, keepdim=True)
    steps = scale_twice(difference, multiplier(x.one_scale * beta / _EXPONENTS.scale))
    place = (steps + _HIGH).clamp(_LOW, _HIGH)
    return look_up(place, _table(torch.exp, _EXPONENTS))


def _table(function: Function, grid: QType) -> Tensor:
    return samples(function, grid, _RESULTS, dtype=torch.float64)
