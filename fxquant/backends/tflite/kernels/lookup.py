"""Functions of one 8-bit value as tables of 256 entries.

    table[q] = clamp(round(f(s_in * (q - z_in)) / s_out) + z_out)

Evaluated in float32, multiplied by the float32 reciprocal of the output's scale, rounded half away;
the delegate rounds its own functions (LOGISTIC, TANH, ELU) to even.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .fixed_point import round_half_away
from .quantized import QTensor, QType, quantized
from .requantize import RANGES, float32
from .selection import kernels

Function = Callable[[Tensor], Tensor]


def table_lookup(x: QTensor, function: Function, out: QType, *, delegated: bool = False) -> QTensor:
    """The table applied to every element; `delegated`: XNNPACK has the function, too."""
    low, high = RANGES[x.dtype]
    entries = torch.arange(low, high + 1, dtype=torch.int64)
    arguments = x.scale * (entries - x.offset).to(torch.float32)
    scaled = function(arguments) * (1 / float32(out.scale))
    to_even = delegated and kernels.get() == "xnnpack"
    rounded = torch.round(scaled) if to_even else round_half_away(scaled)
    return _apply(x, rounded.nan_to_num(0.0) + out.zero_point, out)


def truncated_sqrt(x: QTensor, out: QType) -> QTensor:
    """SQRT: divided by the output's scale and cut off, not rounded."""
    low, high = RANGES[x.dtype]
    entries = torch.arange(low, high + 1, dtype=torch.int64)
    squares = x.scale * (entries - x.offset).clamp(min=0).to(torch.float32)
    roots = squares.to(torch.float64).sqrt().to(torch.float32)  # torch's own is an ulp off at times
    return _apply(x, torch.trunc(roots / float32(out.scale)) + out.zero_point, out)


def by_table(compute: Callable[[QTensor], QTensor], x: QTensor) -> QTensor:
    """`compute` of every 8-bit value there is, then looked up; wider integers are computed."""
    low, high = RANGES[x.dtype]
    if high - low >= 256 or x.values.numel() <= 256:
        return compute(x)
    table = compute(x._replace(values=torch.arange(low, high + 1).to(x.dtype)))
    index = x.values.to(torch.int32).sub_(low).reshape(-1)
    return table._replace(values=table.values.index_select(0, index).reshape(x.shape))


def _apply(x: QTensor, table: Tensor, out: QType) -> QTensor:
    low, _ = RANGES[x.dtype]
    entries = table.clamp(*RANGES[out.torch_dtype]).to(torch.int64).to(out.torch_dtype)
    index = x.values.to(torch.int32).sub_(low).reshape(-1)
    return quantized(entries.index_select(0, index).reshape(x.shape), out)
