"""Pooling of volumes: over each image, then over the depth, which is the same average.

avg_pool3d(x) {kernel=2}   ->   average over (H, W) of [N, C*D, H, W], then over D
"""

from __future__ import annotations

from collections.abc import Sequence

from fxquant.ir.aten import aten

from .pooling import adaptive_images, average_images, max_images
from .registry import legalize
from .rewriter import Rewriter
from .values import Value
from .windows import several

Sizes = int | Sequence[int]


def _split_images(r: Rewriter, x: Value) -> Value:
    """[N, C, D, H, W] as images [N, C*D, H, W]."""
    batch, channels, depth, height, width = r.shape(x)
    return r.reshape(x, (batch, channels * depth, height, width))


def _columns(r: Rewriter, images: Value, channels: int) -> tuple[Value, tuple[int, int]]:
    """Images as one of depth by pixels for each channel."""
    batch, slices, height, width = r.shape(images)
    depth = slices // channels
    return r.reshape(images, (batch, channels, depth, height * width)), (height, width)


def _volume(r: Rewriter, columns: Value, sizes: tuple[int, int]) -> Value:
    return r.reshape(columns, (*r.shape(columns)[:3], *sizes))


@legalize(aten.avg_pool3d.default, moves=True)
def avg_pool3d(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    """Two AVERAGE_POOL_2D; the counts of cells are products too."""
    kernels, pads = several(kernel, 3), several(padding, 3)
    strides = several(stride, 3) if stride not in ((), [], None) else kernels
    channels = r.shape(x)[1]
    options = (ceil_mode, count_include_pad or divisor is not None)
    share = None if divisor is None else divisor / kernels[0]
    images = average_images(
        r, _split_images(r, x), kernels[1:], strides[1:], pads[1:], *options, share
    )
    columns, sizes = _columns(r, images, channels)
    depth = ((kernels[0], 1), (strides[0], 1), (pads[0], 0))
    full = None if divisor is None else kernels[0]
    return _volume(r, average_images(r, columns, *depth, *options, full), sizes)


@legalize(aten.max_pool3d.default, moves=True)
def max_pool3d(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Value:
    """Two MAX_POOL_2D."""
    kernels, pads, steps = several(kernel, 3), several(padding, 3), several(dilation, 3)
    strides = several(stride, 3) if stride not in ((), [], None) else kernels
    channels = r.shape(x)[1]
    whole = (kernels[1:], strides[1:], pads[1:], steps[1:], ceil_mode)
    columns, sizes = _columns(r, max_images(r, _split_images(r, x), *whole), channels)
    depth = ((kernels[0], 1), (strides[0], 1), (pads[0], 0), (steps[0], 1), ceil_mode)
    return _volume(r, max_images(r, columns, *depth), sizes)


@legalize(aten.adaptive_avg_pool3d.default, aten._adaptive_avg_pool3d.default, moves=True)
def adaptive_avg_pool3d(r: Rewriter, x: Value, output_size: Sizes) -> Value:
    """As for images, then along the depth."""
    wanted = several(output_size, 3)
    channels = r.shape(x)[1]
    columns, sizes = _columns(r, adaptive_images(r, _split_images(r, x), wanted[1:]), channels)
    return _volume(r, adaptive_images(r, columns, (wanted[0], r.shape(columns)[3])), sizes)
