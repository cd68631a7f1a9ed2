"""RSQRT of 8-bit values in fixed point: Newton steps for 2**20 / sqrt(q), then the scales.

    root = round(2**20 / sqrt(q - z_in));  y = round(root * 2**-20 / (sqrt(s_in) * s_out)) + z_out

Five steps from 1 do not quite reach the root of the smallest mantissas, which is why a value next
to half a step can differ from the exactly rounded one. 0 gives the largest result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .fixed_point import Multiplier, divide_by_power, doubling_high_signed, multiplier, scale_twice
from .lookup import by_table
from .quantized import QTensor, QType
from .requantize import RANGES, finish, float32

_SHIFT = 20
_HALF_ROOT_TWO = 1518500250  # sqrt(2) / 2 in Q0.31
_HALF_THREE = (1 << 28) + (1 << 27)  # 1.5 in Q3.28
_LARGEST = (1 << 31) - 1


def rsqrt_integers(x: QTensor, out: QType) -> QTensor:
    """1 / sqrt(x); what is not positive is as 0."""
    return by_table(lambda data: _computed(data, out), x)


def _computed(x: QTensor, out: QType) -> QTensor:
    values = x.values.to(torch.int64) - x.offset
    mantissa, shift = _inverse_root(values.clamp(min=1))
    root = scale_twice(torch.ones_like(values), Multiplier(mantissa, shift + _SHIFT))
    scale = 1 / (math.sqrt(float(x.scale[0])) * float(float32(out.scale)))
    by = multiplier(scale)
    scaled = scale_twice(root, Multiplier(by.mantissa, by.exponent - _SHIFT))
    top = RANGES[out.torch_dtype][1] - out.zero_point
    return finish(torch.where(values <= 0, top, scaled), out)


def _inverse_root(values: Tensor) -> tuple[Tensor, Tensor]:
    """1 / sqrt of positive integers below 256: mantissa and exponent as of a `Multiplier`."""
    bits = torch.frexp(values.to(torch.float64))[1].to(torch.int64)
    pairs = (32 - bits - 1) // 2 - 1
    shift, mantissa = 11 - pairs, values << (2 * pairs)
    raised = mantissa >> 1
    half = divide_by_power(raised, 1)
    x = torch.full_like(values, 1 << 28)
    for _ in range(5):
        cube = _saturated(doubling_high_signed(doubling_high_signed(x, x), x) << 6)
        step = doubling_high_signed(x, _HALF_THREE) - doubling_high_signed(half, cube)
        x = _saturated(step << 3)
    x = doubling_high_signed(x, _HALF_ROOT_TWO)
    x = x << (-shift).clamp(min=0)
    shift = shift.clamp(min=0)
    one = values == 1
    return torch.where(one, _LARGEST, x), torch.where(one, 0, -shift)


def _saturated(x: Tensor) -> Tensor:
    return x.clamp(-(1 << 31), _LARGEST)
