"""Integer ADD, SUB, MUL and SQUARED_DIFFERENCE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .fixed_point import multiplier, scale_twice
from .quantized import QTensor, QType
from .requantize import finish, float32, single, twice
from .selection import kernels


def _common(x: QTensor, y: QTensor, bits: int) -> tuple[Tensor, Tensor, float]:
    """Both operands at twice the larger scale with `bits` spare bits, and that scale."""
    whole = 2 * max(x.one_scale, y.one_scale)
    left = scale_twice(x.centered() << bits, multiplier(x.one_scale / whole))
    right = scale_twice(y.centered() << bits, multiplier(y.one_scale / whole))
    return left, right, whole


def add_integers(x: QTensor, y: QTensor, out: QType, activation: str, sign: int) -> QTensor:
    """x + sign * y."""
    if kernels.get() == "xnnpack" and x.dtype in (torch.int8, torch.uint8):
        return _add_delegated(x, y, out, activation, sign)
    bits = 15 if x.dtype == torch.int16 else 20
    left, right, whole = _common(x, y, bits)
    real = multiplier(whole / ((1 << bits) * float(float32(out.scale))))
    return finish(scale_twice(left + sign * right, real), out, activation)


def _add_delegated(x: QTensor, y: QTensor, out: QType, activation: str, sign: int) -> QTensor:
    """Both scale ratios as integers of 20 bits under one common shift, one rounding up."""
    first, second = x.scale / float32(out.scale), y.scale / float32(out.scale)
    shift = 20 - (math.frexp(float(torch.maximum(first, second)))[1] - 1)
    power = float32(2.0**shift)
    left, right = ((ratio * power).round().to(torch.int64) for ratio in (first, second))
    total = x.centered() * left + sign * y.centered() * right
    return finish((total + (1 << (shift - 1))) >> shift, out, activation)


def mul_integers(x: QTensor, y: QTensor, out: QType, activation: str) -> QTensor:
    """x * y."""
    product = x.centered() * y.centered()
    ratio = (x.scale * y.scale) / float32(out.scale)
    if kernels.get() == "xnnpack" and x.dtype in (torch.int8, torch.uint8):
        return single(product, ratio, out, activation)
    return finish(twice(product, ratio.to(torch.float64)), out, activation)


def squared_difference_integers(x: QTensor, y: QTensor, out: QType) -> QTensor:
    """(x - y)**2, with seven spare bits."""
    left, right, whole = _common(x, y, 7)
    difference = left - right
    real = multiplier(whole * whole / ((1 << 14) * float(float32(out.scale))))
    return finish(scale_twice(difference * difference, real), out)
