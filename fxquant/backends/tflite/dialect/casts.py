"""CAST between numbers; of quantized values the integers, without their meaning."""

from __future__ import annotations

import torch
from torch import Tensor

from .values import Value, data_of, has_data, operator


@operator()
def cast(x: Value, *, out_data_type: str) -> Tensor:
    """CAST: float to integer truncates and saturates, NaN becomes the greatest integer."""
    x = data_of(x)
    dtype: torch.dtype = getattr(torch, out_data_type.lower())
    to_integer = not dtype.is_floating_point and dtype != torch.bool
    if not (x.dtype.is_floating_point and to_integer and has_data(x)):
        return x.to(dtype)
    limits = torch.iinfo(dtype)
    whole = x.to(torch.float64).trunc()
    inside = whole.clamp(float(limits.min), float(limits.max)).nan_to_num(0.0).to(torch.int64)
    top = whole.isnan() | (whole >= float(limits.max))
    return torch.where(top, torch.full_like(inside, limits.max), inside).to(dtype)
