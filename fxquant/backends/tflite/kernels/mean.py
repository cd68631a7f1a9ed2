"""MEAN of integers: the sum of centered values times s_in / (s_out * count)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .fixed_point import Multiplier, multiplier, round_away, scale_twice, scale_up
from .quantized import QTensor, QType
from .requantize import finish, float32, rescale, single_for
from .selection import kernels

_VECTOR = 16  # channels that the optimized kernel of images takes at once


def mean_integers(x: QTensor, axes: Sequence[int], keep_dims: bool, out: QType) -> QTensor:
    """The mean over non-negative axes."""
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    ratio = x.scale / float32(out.scale)
    if kernels.get() == "xnnpack" and x.dtype in (torch.int8, torch.uint8):
        total = x.centered().sum(tuple(axes), keepdim=keep_dims)
        return rescale(total, ratio / float(count), single_for(out), out)
    image = x.values.dim() == 4 and tuple(axes) == (1, 2) and keep_dims
    if image and kernels.get() == "optimized" and x.dtype in (torch.int8, torch.uint8):
        return _image_mean(x, count, out)
    total = x.centered().sum(tuple(axes), keepdim=keep_dims)
    return finish(scale_twice(total, _divided(x, out, count)), out)


def _divided(x: QTensor, out: QType, count: int) -> Multiplier:
    """s_in / s_out as a multiplier whose mantissa is then divided by the count."""
    ratio = x.scale.to(torch.float64)[0] / float32(out.scale).to(torch.float64)
    by = multiplier(ratio)
    shift = min(count.bit_length() - 1, 32, 31 + int(by.exponent))
    return Multiplier((by.mantissa << shift) // count, by.exponent - shift)


def _image_mean(x: QTensor, count: int, out: QType) -> QTensor:
    """Raw sums and one bias; the vector loop rounds up, the rest away from zero."""
    offset = float32(float(x.offset)) * x.scale[0] / float32(out.scale)
    bias = out.zero_point - round_away(float(offset))
    real = x.scale[0] / (float32(float(count)) * float32(out.scale))
    by = multiplier(real.to(torch.float64))
    total = x.values.to(torch.int64).sum((1, 2), keepdim=True)
    whole = total.shape[-1] - total.shape[-1] % _VECTOR
    mean = torch.cat([scale_up(total[..., :whole], by), scale_twice(total[..., whole:], by)], -1)
    return finish(mean + (bias - out.zero_point), out)
