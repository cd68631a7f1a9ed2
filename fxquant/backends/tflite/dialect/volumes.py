"""Convolutions of volumes, float only: x NDHWC, filter DHWIO (transposed: DHWOI)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from .convolution import clamp_activation
from .layout import channels_first, channels_last, crop_transposed, pad_first, window_padding
from .values import operator


@operator()
def conv_3d(
    x: Tensor,
    filter: Tensor,
    bias: Tensor | None = None,
    *,
    stride_d: int = 1,
    stride_h: int = 1,
    stride_w: int = 1,
    dilation_d_factor: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    padding: str = "SAME",
    fused_activation_function: str = "NONE",
) -> Tensor:
    """CONV_3D."""
    strides = (stride_d, stride_h, stride_w)
    dilations = (dilation_d_factor, dilation_h_factor, dilation_w_factor)
    pads = window_padding(x.shape[1:4], filter.shape[:3], strides, dilations, padding)
    weights = filter.permute(4, 3, 0, 1, 2)
    padded = pad_first(channels_first(x), pads)
    y = functional.conv3d(padded, weights, bias, stride=strides, dilation=dilations)
    return clamp_activation(channels_last(y), fused_activation_function)


@operator()
def conv_3d_transpose(
    x: Tensor,
    filter: Tensor,
    bias: Tensor | None = None,
    *,
    output_shape: Sequence[int],
    stride_d: int = 1,
    stride_h: int = 1,
    stride_w: int = 1,
    dilation_d_factor: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    padding: str = "SAME",
    fused_activation_function: str = "NONE",
) -> Tensor:
    """CONV_3D_TRANSPOSE: what falls outside output_shape is dropped."""
    strides = (stride_d, stride_h, stride_w)
    dilations = (dilation_d_factor, dilation_h_factor, dilation_w_factor)
    pads = window_padding(output_shape[1:4], filter.shape[:3], strides, dilations, padding)
    weights = filter.permute(4, 3, 0, 1, 2)
    whole = functional.conv_transpose3d(
        channels_first(x), weights, stride=strides, dilation=dilations
    )
    y = channels_last(crop_transposed(whole, pads, output_shape))
    y = y if bias is None else y + bias
    return clamp_activation(y, fused_activation_function)
