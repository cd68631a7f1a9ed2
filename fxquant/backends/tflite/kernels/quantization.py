"""QUANTIZE and DEQUANTIZE.

reference    float: x / s rounded half away; integers: two roundings of the scales' ratio
optimized    float: blocks of 8 times 1 / s, to even, the rest in float64 half away
xnnpack      float: times 1 / s, to even; integers: a ratio with 8 fractional bits only
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fixed_point import round_half_away
from .quantized import QTensor, QType, quantized
from .requantize import RANGES, rescale, twice, up
from .selection import delegated, kernels

_BLOCK = 8
_WIDE_BLOCK = 16


def _clamped(values: Tensor, out: QType) -> QTensor:
    return quantized(values.clamp(*RANGES[out.torch_dtype]), out)


def _by_reciprocal(x: Tensor, scale: Tensor) -> Tensor:
    return torch.round(x * (1 / scale))


def _by_reciprocal_in_blocks(x: Tensor, scale: Tensor) -> Tensor:
    """The vector loop, then the scalar loop over what is left."""
    flat = x.reshape(-1)
    whole = flat.numel() - flat.numel() % _BLOCK
    tail = round_half_away(flat[whole:].to(torch.float64) / scale.to(torch.float64))
    return torch.cat([_by_reciprocal(flat[:whole], scale), tail.to(torch.float32)]).reshape(x.shape)


def quantize_real(x: Tensor, out: QType) -> QTensor:
    """float32 to integers."""
    scale = torch.tensor(out.scale, dtype=torch.float32)
    if out.torch_dtype != torch.int8 or kernels.get() == "reference":
        rounded = round_half_away(x / scale)
    elif kernels.get() == "optimized":
        rounded = _by_reciprocal_in_blocks(x, scale)
    else:
        rounded = _by_reciprocal(x, scale)
    low, high = RANGES[out.torch_dtype]
    return _clamped((rounded + out.zero_point).clamp(low, high).nan_to_num(0.0), out)


def requantize(x: QTensor, out: QType) -> QTensor:
    """Integers of one scale to integers of another."""
    to_scale = torch.tensor(out.scale, dtype=torch.float32)
    eight_bits = {x.dtype, out.torch_dtype} <= {torch.int8, torch.uint8}
    if x.dtype == out.torch_dtype and delegated(x.dtype, 2.0**-8, 2.0**7, x.one_scale / out.scale):
        ratio = torch.round(256 * (x.scale / to_scale)).to(torch.int64)
        return _clamped(((x.centered() * ratio + 128) >> 8) + out.zero_point, out)
    real = x.scale.to(torch.float64) / to_scale.to(torch.float64)
    if not eight_bits or kernels.get() == "reference":
        return rescale(x.centered(), real, twice, out)
    flat = x.centered().reshape(-1)
    whole = flat.numel() - flat.numel() % _WIDE_BLOCK
    scaled = torch.cat([up(real)(flat[:whole]), twice(real)(flat[whole:])])
    return _clamped(scaled.reshape(x.shape) + out.zero_point, out)


def dequantize_real(x: QTensor) -> Tensor:
    """Integers to float32."""
    if kernels.get() != "optimized" or x.axis is not None:
        return x.real()
    flat = x.values.reshape(-1)
    whole = flat.numel() - flat.numel() % _BLOCK
    offset = (-x.zero_point.to(torch.float64) * x.scale.to(torch.float64)).to(torch.float32)
    block = flat[:whole].to(torch.float32) * x.scale + offset
    tail = x._replace(values=flat[whole:]).real()
    return torch.cat([block, tail]).reshape(x.shape)
