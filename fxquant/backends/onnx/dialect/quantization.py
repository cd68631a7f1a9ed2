"""From reals to integers on a grid and back: the pair that stands around a quantized value."""

from __future__ import annotations

import torch
from torch import Tensor

from .operator import operator

Grid = Tensor | float
Zero = Tensor | int


@operator("QuantizeLinear", hidden=("dtype",))
def quantize_linear(x: Tensor, scale: float, zero_point: int, *, dtype: str = "int8") -> Tensor:
    """Rounded half to even, cut to the range of the dtype."""
    kind: torch.dtype = getattr(torch, dtype)
    limits = torch.iinfo(kind)
    return (torch.round(x / _float32(scale)) + zero_point).clamp(limits.min, limits.max).to(kind)


@operator("DequantizeLinear")
def dequantize_linear(x: Tensor, scale: Grid, zero_point: Zero, *, axis: int = 1) -> Tensor:
    """Scale and zero point are numbers, or tensors along `axis`."""
    if isinstance(scale, Tensor):
        shape = [1] * x.dim()
        shape[axis] = -1
        assert isinstance(zero_point, Tensor)
        offset = zero_point.reshape(shape).to(torch.int32)
        return (x.to(torch.int32) - offset).float() * scale.reshape(shape)
    return (x.to(torch.int32) - zero_point).float() * _float32(scale)


def _float32(scale: float) -> float:
    """The scale as the file holds it."""
    return torch.tensor(scale, dtype=torch.float32).item()
