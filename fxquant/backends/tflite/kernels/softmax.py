"""SOFTMAX of int8 rows.

    reference            gemmlowp fixed point: exponentials in Q0.31, their sum in Q12.19
    optimized, xnnpack   a float32 table of exponentials, summed in order

Both gave the same bytes in every comparison made. The reference kernel aborts the process when
the exponentials of a row add up to 512 or more, so rows that long are refused by the row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .fixed_point import (
    divide_by_power,
    divide_truncating,
    doubling_high_signed,
    multiplier,
    round_half_away,
)
from .quantized import QTensor, QType
from .requantize import finish, float32
from .selection import kernels

_ONE = (1 << 31) - 1  # 1.0 in Q0.31
_DIFFERENCE_BITS = 5  # differences are Q5.26
_SUM_BITS = 12  # sums are Q12.19

# exp(-2**k) in Q0.31 for k = -2 .. 4, which the binary digits of a difference select.
_POWERS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)
_EXP_OF_EIGHTH = 1895147668  # exp(-1/8), about which the polynomial stands
_THIRD = 715827883
_NEWTON_48_17 = 1515870810  # 48/17 in Q2.29, start of the reciprocal
_NEWTON_32_17 = -1010580540


def softmax_integers(x: QTensor, beta: float, out: QType) -> QTensor:
    """Softmax over the last axis."""
    difference = x.values.to(torch.int64)
    difference = difference - difference.amax(-1, keepdim=True)
    if kernels.get() == "reference":
        return finish(_fixed_point(difference, x.one_scale * beta) + 0, out)
    return finish(_by_table(difference, x.scale[0], beta), out)


def _by_table(difference: Tensor, scale: Tensor, beta: float) -> Tensor:
    steps = torch.arange(256, dtype=torch.float32)
    table = torch.exp(-(scale * float32(beta)) * steps)
    exponentials = table[-difference]
    total = torch.zeros_like(exponentials[..., 0])
    for column in exponentials.unbind(-1):  # the order of a float32 sum is part of the result
        total = total + column
    inverse = 1 / (total * float32(1 / 256))
    return round_half_away(exponentials * inverse[..., None]).to(torch.int64)


def _fixed_point(difference: Tensor, scale: float) -> Tensor:
    by = multiplier(min(scale * (1 << 26), 2.0**31 - 1))
    radius = math.floor(((1 << 5) - 1) * (1 << 26) / (1 << int(by.exponent)))
    rescaled = doubling_high_signed(difference << by.exponent, by.mantissa)
    exponentials = _exp_of_negative(rescaled)
    near = difference >= -radius
    total = torch.where(near, divide_by_power(exponentials, _SUM_BITS), 0).sum(-1, keepdim=True)
    inverse, shift = _reciprocal(total)
    probability = divide_by_power(doubling_high_signed(inverse, exponentials), shift + 31 - 8)
    return torch.where(near, probability, 0)


def _exp_of_negative(x: Tensor) -> Tensor:
    """exp(x) in Q0.31 of x <= 0 in Q5.26."""
    fraction_bits = 31 - _DIFFERENCE_BITS
    quarter = 1 << (fraction_bits - 2)
    remainder = (x & (quarter - 1)) - quarter
    result = _exp_near_zero(remainder << _DIFFERENCE_BITS)
    digits = remainder - x
    for exponent, power in _POWERS:
        chosen = (digits & (1 << (fraction_bits + exponent))) != 0
        result = torch.where(chosen, doubling_high_signed(result, power), result)
    return torch.where(x == 0, torch.full_like(result, _ONE), result)


def _exp_near_zero(x: Tensor) -> Tensor:
    """exp(x) in Q0.31 of x in [-1/4, 0): a polynomial of degree 4 about -1/8."""
    t = x + (1 << 28)
    square = doubling_high_signed(t, t)
    cube = doubling_high_signed(square, t)
    fourth = divide_by_power(doubling_high_signed(square, square), 2)
    tail = divide_by_power(doubling_high_signed(fourth + cube, _THIRD) + square, 1)
    return _EXP_OF_EIGHTH + doubling_high_signed(t + tail, _EXP_OF_EIGHTH)


def _reciprocal(total: Tensor) -> tuple[Tensor, Tensor]:
    """1 / total in Q0.31 of its mantissa, and the bits by which total exceeds 1."""
    bits = torch.frexp(total.to(torch.float64))[1].to(torch.int64)
    zeros = 32 - bits
    mantissa = (total << zeros) - (1 << 31)
    half = divide_truncating(mantissa + _ONE + torch.sign(mantissa + _ONE), 2)
    guess = _NEWTON_48_17 + doubling_high_signed(half, _NEWTON_32_17)
    for _ in range(3):
        error = (1 << 29) - doubling_high_signed(half, guess)
        guess = guess + _saturated(doubling_high_signed(guess, error) << 2)
    return _saturated(guess << 1), _SUM_BITS - zeros


def _saturated(x: Tensor) -> Tensor:
    return x.clamp(-(1 << 31), _ONE)
