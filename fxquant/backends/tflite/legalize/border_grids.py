"""The grid of a value at the file's border, where the caller's dtype is another than the graph's.

%x: i8<0.02,-3>    io_dtype="uint8"   ->   u8<0.02,125>, then QUANTIZE: exact
%x: i16<0.001,0>   io_dtype="int8"    ->   i8<0.258,0>, then QUANTIZE: coarser
"""

from __future__ import annotations

import torch

from fxquant.backends.tflite.dialect.values import QType

from .grids import float32

_EIGHT_BITS = ("int8", "uint8")


def at_border(grid: QType, dtype: str) -> QType:
    """A grid of another dtype that holds every value of `grid`; the same reals between 8 bits.

    >>> at_border(QType("int8", 0.5, -3), "uint8")
    QType(dtype='uint8', scale=0.5, zero_point=125)
    """
    if grid.dtype == dtype:
        return grid
    own, wanted = torch.iinfo(grid.torch_dtype), torch.iinfo(getattr(torch, dtype))
    if grid.dtype in _EIGHT_BITS and dtype in _EIGHT_BITS:
        return QType(dtype, grid.scale, grid.zero_point - own.min + wanted.min)
    farthest = max(grid.zero_point - own.min, own.max - grid.zero_point)
    middle = (wanted.min + wanted.max + 1) // 2
    return QType(dtype, float32(grid.scale * farthest / (wanted.max - middle)), middle)


def widest(grids: set[QType]) -> QType:
    """The grid that a value keeps which is read on several: most bits, then the coarsest."""
    return max(grids, key=lambda grid: (torch.iinfo(grid.torch_dtype).bits, grid.scale, grid))
