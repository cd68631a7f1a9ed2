"""LOGISTIC and TANH of 16-bit fixed point numbers as the LSTM kernel computes them.

    sigmoid_table()     raw of 3 integer bits (steps of 2**-12) -> 2**15 * sigmoid
    tanh_table(n)       raw of n integer bits (steps of 2**(n - 15)) -> 2**15 * tanh

All arithmetic is on int16 that saturates: exp from a polynomial on (-1/4, 0] and one factor for
each bit of the rest, then 1 / (1 + x) and (1 - x) / (1 + x) by three steps of Newton's. There are
65,536 inputs, so each function is a table, made when it is first read.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_LOW, _HIGH = -(1 << 15), (1 << 15) - 1
_EXP_OF_MINUS_EIGHTH = 1895147668
_THIRD = 715827883
_EXP_FACTORS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)
"""(n, exp(-(2**n))) in steps of 2**-31."""
_48_OVER_17, _MINUS_32_OVER_17 = 1515870810, -1010580540


def look_up(table: Tensor, raw: Tensor) -> Tensor:
    """The table's entry for each int16 value, as int64."""
    return table[raw.to(torch.int64) - _LOW]


@functools.cache
def sigmoid_table() -> Tensor:
    """2**15 * sigmoid of every int16 in steps of 2**-12."""
    raw = torch.arange(_LOW, _HIGH + 1)
    positive = _inverse_of_one_plus(_exp(-raw.abs(), 3))
    found = torch.where(raw > 0, positive, _HIGH - positive)
    return torch.where(raw == 0, 1 << 14, found)


@functools.cache
def tanh_table(integer_bits: int) -> Tensor:
    """2**15 * tanh of every int16 in steps of 2**(integer_bits - 15)."""
    raw = torch.arange(_LOW, _HIGH + 1)
    magnitude = _one_minus_over_one_plus(_exp(-raw.abs(), integer_bits + 1))
    return torch.where(raw == 0, 0, torch.where(raw < 0, -magnitude, magnitude))


def _saturated(x: Tensor) -> Tensor:
    return x.clamp(_LOW, _HIGH)


def _constant(of_31_bits: int) -> int:
    """A constant of 31 fraction bits with 15, ties up."""
    return (of_31_bits + (1 << 15)) >> 16


def _times(x: Tensor, y: Tensor | int) -> Tensor:
    """The product of two raw values, in steps of 2**-15 of their units, ties up."""
    return _saturated((x * y + (1 << 14)) >> 15)


def _halved(x: Tensor, exponent: int) -> Tensor:
    """x / 2**exponent, ties away from zero."""
    half = 1 << (exponent - 1)
    return torch.sign(x) * ((x.abs() + half) >> exponent)


def _exp(x: Tensor, integer_bits: int) -> Tensor:
    """2**15 * exp of raw values <= 0."""
    fraction_bits = 15 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    within = (x & (quarter - 1)) - quarter
    found = _exp_near_zero(_saturated(within << integer_bits))
    rest = within - x
    for power, factor in _EXP_FACTORS:
        if power < integer_bits:
            wanted = (rest & (1 << (fraction_bits + power))) != 0
            found = torch.where(wanted, _times(found, _constant(factor)), found)
    if integer_bits > 5:
        found = torch.where(x < -(1 << (36 - integer_bits - 16)), 0, found)
    return torch.where(x == 0, _HIGH, found)


def _exp_near_zero(x: Tensor) -> Tensor:
    """2**15 * exp of raw values in [-1/4, 0), by its series around -1/8."""
    one, third = _constant(_EXP_OF_MINUS_EIGHTH), _constant(_THIRD)
    y = x + (1 << 12)
    y2 = _times(y, y)
    y3, y4 = _times(y2, y), _times(y2, y2)
    rest = _halved(_times(_halved(y4, 2) + y3, third) + y2, 1)
    return _saturated(one + _times(y + rest, one))


def _newton(x: Tensor) -> Tensor:
    """1 / ((1 + x) / 2) for raw x in [0, 1]: 2 integer bits."""
    sums = x + _HIGH
    half = (sums + torch.where(sums >= 0, 1, -1)).div(2, rounding_mode="trunc")
    found = _constant(_48_OVER_17) + _times(half, _constant(_MINUS_32_OVER_17))
    for _ in range(3):
        lacking = (1 << 13) - _times(half, found)
        found = found + _saturated(_times(found, lacking) << 2)
    return found


def _inverse_of_one_plus(x: Tensor) -> Tensor:
    """2**15 / (1 + x)."""
    return _saturated(_newton(x) << 1)


def _one_minus_over_one_plus(x: Tensor) -> Tensor:
    """2**15 * (1 - x) / (1 + x)."""
    return _saturated((_newton(x) - (1 << 13)) << 2)
