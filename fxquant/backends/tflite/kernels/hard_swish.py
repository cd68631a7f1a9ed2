"""HARD_SWISH of 8-bit values: x * relu6(x + 3) / 6 in saturating 16-bit arithmetic.

All sets of kernels compute this alike. Both factors are x with 7 spare bits, one rescaled to the
output, the other to the range where the whole of int16 spans [-3, 3].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fixed_point import divide_by_power, divide_truncating, multiplier
from .quantized import QTensor, QType
from .requantize import finish, float32

_LOW, _HIGH = -32768, 32767
_SPARE_BITS = 7


def hard_swish_integers(x: QTensor, out: QType) -> QTensor:
    """The integers of hard_swish(x)."""
    fine = float32(1 / 128) * x.scale[0]
    output = multiplier((fine / float32(out.scale)).to(torch.float64))
    gate = multiplier((fine / (float32(3.0) / float32(32768.0))).to(torch.float64))
    spread = x.centered() << _SPARE_BITS
    factor = _product(spread, _to_16_bits(output.mantissa))
    reluish = (_reluish(spread, _to_16_bits(gate.mantissa), int(gate.exponent)) + (1 << 15)) >> 1
    product = _saturated(divide_truncating(reluish * factor, 1 << 15))
    return finish(divide_by_power(product, -int(output.exponent)), out)


def _reluish(x: Tensor, mantissa: Tensor, exponent: int) -> Tensor:
    """x in units of 3 / 32768, saturated."""
    if exponent > 0:
        rescaled = _product(_saturated(x << (exponent - 1)), mantissa)
        return _saturated(rescaled << 1)
    return divide_by_power(_product(x, mantissa), -exponent)


def _to_16_bits(mantissa: Tensor) -> Tensor:
    return ((mantissa + (1 << 15)) >> 16).clamp(max=_HIGH)


def _saturated(x: Tensor) -> Tensor:
    return x.clamp(_LOW, _HIGH)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x * y / 2**15, ties up, saturated."""
    return _saturated((x * y + (1 << 14)) >> 15)
