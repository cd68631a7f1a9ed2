"""Convolutions, pools and resizing, channels first."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import operator

Sizes = tuple[int, ...]

CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOLS: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def torch_padding(pads: Sizes) -> list[int]:
    """Begins and ends by dimension, in the order of `F.pad`: the last dimension first.

    >>> torch_padding((1, 2, 3, 4))
    [2, 4, 1, 3]
    """
    half = len(pads) // 2
    return [part for n in reversed(range(half)) for part in (pads[n], pads[half + n])]


@operator("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    strides: Sizes,
    pads: Sizes,
    dilations: Sizes,
    group: int = 1,
) -> Tensor:
    """Pads are the begins of all dimensions, then the ends."""
    rank = len(strides)
    padding = pads[:rank]
    if pads[rank:] != padding:
        x, padding = F.pad(x, torch_padding(pads)), (0,) * rank
    found: Tensor = CONVOLUTIONS[rank](x, w, b, strides, padding, dilations, group)
    return found


@operator("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    strides: Sizes,
    pads: Sizes,
    dilations: Sizes,
    output_padding: Sizes,
    group: int = 1,
) -> Tensor:
    """Pads, the same on both sides, are cut off the result."""
    rank = len(strides)
    found: Tensor = TRANSPOSED[rank](
        x, w, b, strides, pads[:rank], output_padding, group, dilations
    )
    return found


@operator("MaxPool")
def max_pool(
    x: Tensor, *, kernel_shape: Sizes, strides: Sizes, pads: Sizes, dilations: Sizes
) -> Tensor:
    """Padded elements never win."""
    low = -float("inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    x = F.pad(x, torch_padding(pads), value=low)
    found: Tensor = MAX_POOLS[len(kernel_shape)](x, kernel_shape, strides, 0, dilations)
    return found


@operator("AveragePool")
def average_pool(
    x: Tensor, *, kernel_shape: Sizes, strides: Sizes, pads: Sizes, count_include_pad: int = 0
) -> Tensor:
    """Padded elements count only where the attribute says so."""
    pool = AVERAGE_POOLS[len(kernel_shape)]
    found: Tensor = pool(F.pad(x, torch_padding(pads)), kernel_shape, strides)
    if count_include_pad or not any(pads):
        return found
    present = F.pad(torch.ones_like(x), torch_padding(pads))
    whole: Tensor = found / pool(present, kernel_shape, strides)
    return whole


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("Resize")
def resize(
    x: Tensor,
    roi: None,
    scales: tuple[float, ...] | None = None,
    sizes: Sizes | Tensor | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
) -> Tensor:
    """The forms that torch has: each is one of torch's own modes."""
    names = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
    exact = "nearest" if nearest_mode == "floor" else "nearest-exact"
    kind = exact if mode == "nearest" else names[mode][x.dim()]
    aligned = coordinate_transformation_mode == "align_corners"
    corners = None if mode == "nearest" else aligned
    if scales is not None:
        return F.interpolate(
            x,
            scale_factor=scales[2:],
            mode=kind,
            align_corners=corners,
            recompute_scale_factor=False,
        )
    assert sizes is not None
    wanted = sizes.tolist() if isinstance(sizes, Tensor) else list(sizes)
    return F.interpolate(x, size=wanted[2:], mode=kind, align_corners=corners)
