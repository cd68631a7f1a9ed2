"""Integer ADD, SUB, MUL and SQUARED_DIFFERENCE."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .fixed_point import Multiplier, multiplier, scale_once, scale_twice
from .pieces import elementwise
from .quantized import QTensor, QType, quantized
from .requantize import activation_range, float32, single_for, twice
from .selection import delegated, kernels

_BLOCK = 16  # 16-bit values that the optimized ADD takes at once


def _common(x: QTensor, y: QTensor) -> tuple[Multiplier, Multiplier, float]:
    """What brings both operands to twice the larger scale, and that scale."""
    whole = 2 * max(x.one_scale, y.one_scale)
    return multiplier(x.one_scale / whole), multiplier(y.one_scale / whole), whole


def _combine(
    function: Callable[[Tensor, Tensor], Tensor],
    x: QTensor,
    y: QTensor,
    out: QType,
    activation: str = "NONE",
) -> QTensor:
    """`function` of the centered int64 operands, then zero point and clamp."""
    low, high = activation_range(activation, out)

    def piece(left: Tensor, right: Tensor) -> Tensor:
        a, b = left.to(torch.int64).sub_(x.offset), right.to(torch.int64).sub_(y.offset)
        return function(a, b).add_(out.zero_point).clamp_(low, high)

    return quantized(elementwise(piece, out.torch_dtype, x.values, y.values), out)


def add_integers(x: QTensor, y: QTensor, out: QType, activation: str, sign: int) -> QTensor:
    """x + sign * y."""
    ratios = x.one_scale / out.scale, y.one_scale / out.scale
    if delegated(x.dtype, 2.0**-10, 2.0**8, *ratios):
        return _add_delegated(x, y, out, activation, sign)
    bits = 15 if x.dtype == torch.int16 else 20
    first, second, whole = _common(x, y)
    real = multiplier(whole / ((1 << bits) * float(float32(out.scale))))
    in_blocks = bits == 15 and sign == 1 and x.shape == y.shape and kernels.get() != "reference"
    widened = _once_in_blocks if in_blocks else scale_twice

    def total(a: Tensor, b: Tensor) -> Tensor:
        left, right = widened(a << bits, first), widened(b << bits, second)
        return scale_twice(left.add_(right, alpha=sign), real)

    return _combine(total, x, y, out, activation)


def _once_in_blocks(x: Tensor, by: Multiplier) -> Tensor:
    """Flat values: one rounding where the vector loop runs, two in what it leaves."""
    whole = x.numel() - x.numel() % _BLOCK
    return torch.cat([scale_once(x[:whole], by), scale_twice(x[whole:], by)])


def _add_delegated(x: QTensor, y: QTensor, out: QType, activation: str, sign: int) -> QTensor:
    """Both scale ratios as integers of 20 bits under one common shift, one rounding up."""
    ratios = x.scale[0] / float32(out.scale), y.scale[0] / float32(out.scale)
    shift = 20 - (math.frexp(float(max(ratios)))[1] - 1)
    power = float32(2.0**shift)
    first, second = (int((ratio * power).round()) for ratio in ratios)
    half = 1 << (shift - 1)
    return _combine(
        lambda a, b: (a * first + b * (sign * second) + half) >> shift, x, y, out, activation
    )


def mul_integers(x: QTensor, y: QTensor, out: QType, activation: str) -> QTensor:
    """x * y."""
    ratio = (x.scale * y.scale) / float32(out.scale)
    if delegated(x.dtype, 2.0**-16, 2.0**8, float(ratio)):
        rounding = single_for(out, activation)(ratio)
    else:
        rounding = twice(ratio.to(torch.float64))
    return _combine(lambda a, b: rounding(a * b), x, y, out, activation)


def squared_difference_integers(x: QTensor, y: QTensor, out: QType) -> QTensor:
    """(x - y)**2, with seven spare bits."""
    first, second, whole = _common(x, y)
    real = multiplier(whole * whole / ((1 << 14) * float(float32(out.scale))))

    def square(a: Tensor, b: Tensor) -> Tensor:
        difference = scale_twice(a << 7, first) - scale_twice(b << 7, second)
        return scale_twice(difference * difference, real)

    return _combine(square, x, y, out)
