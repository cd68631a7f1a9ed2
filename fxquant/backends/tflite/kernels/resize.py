"""Resizing: where a result's pixel reads, and with which weights.

reference, optimized   coordinates and weights in 1/1024, 20-bit products, truncating division;
                       uint8 in float32, rounded half up
xnnpack                float32 coordinates, weights in 1/2048, one rounding up
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .fixed_point import divide_truncating, round_half_away
from .requantize import float32
from .selection import kernels


def _scale(size: int, wanted: int, align_corners: bool) -> Tensor:
    if align_corners and wanted > 1:
        return float32(float(size - 1)) / float32(float(wanted - 1))
    return float32(float(size)) / float32(float(wanted))


def nearest_positions(size: int, wanted: int, align_corners: bool, half_pixel: bool) -> Tensor:
    """The source index of every index of the result."""
    index = torch.arange(wanted, dtype=torch.float32) + (0.5 if half_pixel else 0.0)
    position = index * _scale(size, wanted, align_corners)
    whole = round_half_away(position) if align_corners else torch.floor(position)
    return whole.clamp(0, size - 1).to(torch.int64)


def _real_coordinates(
    size: int, wanted: int, align_corners: bool, half_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower index, upper index and weight of the upper one."""
    scale = _scale(size, wanted, align_corners)
    index = torch.arange(wanted, dtype=torch.float32)
    position = (index + 0.5) * scale - 0.5 if half_pixel else index * scale
    lower = torch.floor(position).clamp(min=0)
    upper = torch.ceil(position).clamp(max=size - 1)
    return lower.to(torch.int64), upper.to(torch.int64), position - lower


def bilinear_reals(x: Tensor, size: Sequence[int], align_corners: bool, half_pixel: bool) -> Tensor:
    """RESIZE_BILINEAR of floats, one spatial dimension after the other."""
    for dim, wanted in enumerate(size, start=1):
        found = _real_coordinates(x.shape[dim], wanted, align_corners, half_pixel)
        lower, upper, weight = (part.to(x.device) for part in found)
        shape = [1] * x.dim()
        shape[dim] = -1
        share = weight.reshape(shape)
        x = x.index_select(dim, lower) * (1 - share) + x.index_select(dim, upper) * share
    return x


def bilinear_integers(
    x: Tensor, size: Sequence[int], align_corners: bool, half_pixel: bool
) -> Tensor:
    """RESIZE_BILINEAR of integers, as int64."""
    if kernels.get() == "xnnpack" and x.dtype in (torch.int8, torch.uint8):
        coordinates, bits = _delegated_coordinates, 11
    elif x.dtype == torch.uint8:
        reals = bilinear_reals(x.to(torch.float32), size, align_corners, half_pixel)
        return (reals + 0.5).to(torch.int64)
    else:
        coordinates, bits = _fixed_coordinates, 10
    data = x.to(torch.int64)
    for dim, wanted in enumerate(size, start=1):
        lower, upper, weight = coordinates(x.shape[dim], wanted, align_corners, half_pixel)
        shape = [1] * x.dim()
        shape[dim] = -1
        share = weight.reshape(shape)
        first, second = data.index_select(dim, lower), data.index_select(dim, upper)
        data = first * ((1 << bits) - share) + second * share
    if bits == 11:
        return (data + (1 << 21)) >> 22
    return divide_truncating(data + torch.where(data > 0, 1 << 19, -(1 << 19)), 1 << 20)


def _fixed_coordinates(
    size: int, wanted: int, align_corners: bool, half_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if align_corners and wanted > 1:
        scale = (1024 * (size - 1) + (wanted - 1) // 2) // (wanted - 1)
    else:
        scale = (1024 * size + wanted // 2) // wanted
    position = torch.arange(wanted) * scale + (scale // 2 - 512 if half_pixel else 0)
    lower = divide_truncating(position, 1024).clamp(min=0)
    upper = divide_truncating(position + 1023, 1024).clamp(0, size - 1)
    return lower, upper, position - 1024 * lower


def _delegated_coordinates(
    size: int, wanted: int, align_corners: bool, half_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    less = 1 if align_corners and wanted != 1 else 0
    scale = float32(float(size - less)) / float32(float(wanted - less))
    position = torch.arange(wanted, dtype=torch.float32) * scale
    if half_pixel:
        position = position + (0.5 * scale - 0.5)
    position = position.clamp(0.0, float(size - 1))
    lower = position.to(torch.int64)
    weight = torch.round((position - lower) * 2048).to(torch.int64)
    return lower, (lower + 1).clamp(max=size - 1), weight
