"""Multiplying integers by a real number without floating point, rounding as LiteRT rounds.

A real multiplier becomes mantissa * 2**(exponent - 31) with a mantissa of 31 bits. The products
fit into int64, where everything here is computed; tensors of multipliers (one per channel)
broadcast along the last axis.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Multiplier(NamedTuple):
    """mantissa * 2**(exponent - 31), one or one per channel."""

    mantissa: Tensor
    exponent: Tensor


def one_or_many(parameter: Tensor) -> Tensor:
    """A vector of one as a scalar, which broadcasts to scalars too."""
    return parameter.reshape(()) if parameter.numel() == 1 else parameter


def multiplier(real: Tensor | float) -> Multiplier:
    """The fixed-point form of positive reals (float64).

    >>> multiplier(0.75)
    Multiplier(mantissa=tensor(1610612736), exponent=tensor(0))
    """
    value = one_or_many(torch.as_tensor(real, dtype=torch.float64))
    fraction, exponent = torch.frexp(value)
    mantissa = torch.floor(fraction * 2.0**31 + 0.5).to(torch.int64)
    exponent = exponent.to(torch.int64)
    carried = mantissa == 1 << 31
    mantissa = torch.where(carried, mantissa >> 1, mantissa)
    exponent = torch.where(carried, exponent + 1, exponent)
    tiny = exponent < -31
    return Multiplier(mantissa.masked_fill(tiny, 0), exponent.masked_fill(tiny, 0))


def doubling_high(x: Tensor, mantissa: Tensor | int) -> Tensor:
    """x * mantissa / 2**31 for int32 values and a mantissa >= 0, ties up.

    The nudge that LiteRT adds depends on the sign, and its division truncates: together they are
    this one shift.

    >>> doubling_high(torch.tensor([3, -3]), 1 << 30)
    tensor([ 2, -1])
    """
    return (x * mantissa + (1 << 30)) >> 31


def doubling_high_signed(x: Tensor, y: Tensor | int) -> Tensor:
    """As `doubling_high` for factors of any sign, with the one product that saturates."""
    product = x * y
    rounded = (product + (1 << 30)) >> 31
    return rounded.clamp(max=(1 << 31) - 1)


def divide_by_power(x: Tensor, exponent: Tensor | int) -> Tensor:
    """x / 2**exponent, ties away from zero.

    >>> divide_by_power(torch.tensor([5, -5, 6]), 1), divide_by_power(torch.tensor([7]), 0)
    (tensor([ 3, -3,  3]), tensor([7]))
    """
    shift = torch.as_tensor(exponent)
    half = (torch.ones_like(shift) << shift) >> 1
    negative_tie = (x < 0) & (shift > 0)
    return (x + half - negative_tie.to(torch.int64)) >> shift


def divide_truncating(x: Tensor, divisor: Tensor | int) -> Tensor:
    """Integer division toward zero, as in C++."""
    return torch.div(x, divisor, rounding_mode="trunc")


def round_half_away(x: Tensor) -> Tensor:
    """std::round: ties away from zero, exact next to a half.

    >>> round_half_away(torch.tensor([0.5, -2.5, 0.49999997]))
    tensor([ 1., -3.,  0.])
    """
    whole = torch.trunc(x)
    return whole + torch.where((x - whole).abs() >= 0.5, torch.sign(x), torch.zeros_like(x))


def round_away(x: float) -> int:
    """`round_half_away` of one number."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def scale_twice(x: Tensor, by: Multiplier) -> Tensor:
    """x * by with the reference kernels' two roundings: up, then away from zero."""
    high, right = _first_rounding(x, by)
    tie = (high >> 63).mul_((right > 0).to(torch.int64))
    half = (torch.ones_like(right) << right) >> 1
    return high.add_(half).add_(tie).bitwise_right_shift_(right)


def scale_up(x: Tensor, by: Multiplier) -> Tensor:
    """x * by with two roundings that both go up on ties: x86 vector kernels."""
    high, right = _first_rounding(x, by)
    half = (torch.ones_like(right) << right) >> 1
    return high.add_(half).bitwise_right_shift_(right)


def scale_once(x: Tensor, by: Multiplier) -> Tensor:
    """x * by with one rounding, ties up; x * mantissa must fit into int64.

    >>> scale_once(torch.tensor([5, -5]), multiplier(0.5))
    tensor([ 3, -2])
    """
    right = 31 - by.exponent
    return (x * by.mantissa + (torch.ones_like(right) << (right - 1))) >> right


def _first_rounding(x: Tensor, by: Multiplier) -> tuple[Tensor, Tensor]:
    """The high half of the product, and the right shift that is left to do."""
    left, right = by.exponent.clamp(min=0), (-by.exponent).clamp(min=0)
    product = x * (by.mantissa << left)
    return product.add_(1 << 30).bitwise_right_shift_(31), right


def scale_wide(x: Tensor, by: Multiplier) -> Tensor:
    """x * by for int64 accumulators (int16 activations): the mantissa cut to 16 bits."""
    narrow = (by.mantissa + (1 << 15)) >> 16
    narrow = torch.where(by.mantissa >= 0x7FFF0000, torch.full_like(narrow, 0x7FFF), narrow)
    shift = 15 - by.exponent
    return (x * narrow + (torch.ones_like(shift) << (shift - 1))) >> shift
