"""Pooling over NHWC windows; the result keeps the scale of x.

The average counts only the cells inside the image, for SAME padding too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.fixed_point import divide_truncating
from ..kernels.requantize import activation_range
from .convolution import clamp_activation
from .layout import channels_first, channels_last, pad_first, window_padding
from .values import QTensor, Value, operator


def _window(
    x: Tensor, kernel: tuple[int, int], strides: tuple[int, int], padding: str, value: float
) -> Tensor:
    pads = window_padding(x.shape[1:3], kernel, strides, (1, 1), padding)
    return pad_first(channels_first(x), pads, value)


def _clamp_integers(values: Tensor, x: QTensor, activation: str) -> QTensor:
    low, high = activation_range(activation, x.qtype)
    return x.with_values(values.clamp(low, high).to(x.dtype))


@operator(keeps=True)
def max_pool_2d(
    x: Value,
    *,
    filter_height: int,
    filter_width: int,
    stride_h: int = 1,
    stride_w: int = 1,
    padding: str = "VALID",
    fused_activation_function: str = "NONE",
) -> Value:
    """MAX_POOL_2D."""
    kernel, strides = (filter_height, filter_width), (stride_h, stride_w)

    def pooled(data: Tensor) -> Tensor:
        window = _window(data, kernel, strides, padding, float("-inf"))
        return channels_last(functional.max_pool2d(window, kernel, strides))

    if isinstance(x, QTensor):
        return _clamp_integers(pooled(x.values.to(torch.float32)), x, fused_activation_function)
    return clamp_activation(pooled(x), fused_activation_function)


@operator(keeps=True)
def average_pool_2d(
    x: Value,
    *,
    filter_height: int,
    filter_width: int,
    stride_h: int = 1,
    stride_w: int = 1,
    padding: str = "VALID",
    fused_activation_function: str = "NONE",
) -> Value:
    """AVERAGE_POOL_2D: integers rounded half away from zero, zero point and all."""
    kernel, strides = (filter_height, filter_width), (stride_h, stride_w)

    def sums(data: Tensor) -> Tensor:
        window = _window(data, kernel, strides, padding, 0.0)
        return channels_last(functional.avg_pool2d(window, kernel, strides, divisor_override=1))

    if isinstance(x, QTensor):
        total = sums(x.values.to(torch.float64)).to(torch.int64)
        count = sums(torch.ones((1, *x.shape[1:3], 1), dtype=torch.float64)).to(torch.int64)
        half = torch.where(total > 0, count // 2, -(count // 2))
        return _clamp_integers(divide_truncating(total + half, count), x, fused_activation_function)
    cells = sums(torch.ones_like(x[:1, ..., :1]))
    return clamp_activation(sums(x) / cells, fused_activation_function)


@operator()
def l2_pool_2d(
    x: Tensor,
    *,
    filter_height: int,
    filter_width: int,
    stride_h: int = 1,
    stride_w: int = 1,
    padding: str = "VALID",
    fused_activation_function: str = "NONE",
) -> Tensor:
    """L2_POOL_2D: the root of the mean square of each window."""
    squares = average_pool_2d(
        x * x,
        filter_height=filter_height,
        filter_width=filter_width,
        stride_h=stride_h,
        stride_w=stride_w,
        padding=padding,
    )
    assert isinstance(squares, Tensor)
    return clamp_activation(squares.sqrt(), fused_activation_function)
