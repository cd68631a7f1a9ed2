"""Functions of one 16-bit value: 513 samples, straight lines between them.

    base = table[256 + (q >> 7)],  q' = base + ((next - base) * (q & 127) + 64 >> 7)

Each sample is moved by half the error that the line has in the middle of its piece. Steep
functions come out coarsely: EXP up to 3 steps, LOG up to 30.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .fixed_point import round_half_away
from .quantized import QTensor, QType, quantized
from .requantize import RANGES

Function = Callable[[Tensor], Tensor]

_PIECES = 512
_LOW, _HIGH = RANGES[torch.int16]


def interpolated(x: QTensor, function: Function, out: QType) -> QTensor:
    """A function of 16-bit integers, as 16-bit integers."""
    table = samples(function, x.qtype, out, dtype=torch.float32)
    return quantized(look_up(x.values.to(torch.int64), table), out)


def with_pole(function: Function, out: QType, infinity: float) -> Function:
    """A function that is infinite at 0: there and below it the end of the result's range."""
    end = (_LOW if infinity < 0 else _HIGH) * out.scale
    return lambda x: torch.where(x > 0, function(x), end)


def samples(function: Function, grid: QType, out: QType, dtype: torch.dtype) -> Tensor:
    """The 513 samples as int64; `dtype` is that of the arithmetic, which is part of the result."""
    first, last = _ends(grid, dtype)
    width = (last - first) / _PIECES
    least, greatest = _ends(out, dtype)
    inverse = (_HIGH - _LOW + 1) / (greatest - least)
    starts = first + torch.arange(_PIECES, dtype=dtype) * width
    here = function(starts) * inverse
    middle = function(starts + width / 2) * inverse
    there = function(first + torch.arange(1, _PIECES + 1, dtype=dtype) * width) * inverse
    sample = round_half_away(here)
    error = round_half_away((there + sample) / 2) - round_half_away(middle)
    end = round_half_away(function(last.reshape(1)) * inverse)
    table = torch.cat([sample - round_half_away(error / 2), end])
    return table.clamp(_LOW, _HIGH).to(torch.int64)


def _ends(grid: QType, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The reals that the least and the greatest integer stand for."""
    scale = torch.tensor(grid.scale, dtype=dtype)
    return scale * (_LOW - grid.zero_point), scale * (_HIGH - grid.zero_point)


def look_up(values: Tensor, table: Tensor) -> Tensor:
    """The function of int64 values within 16 bits."""
    place = (values >> 7) + 256
    base = table[place]
    return base + (((table[place + 1] - base) * (values & 127) + 64) >> 7)
