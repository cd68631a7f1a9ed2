"""Convolutions and dense layers, in the file's layouts.

    x NHWC, conv_2d filter OHWI, depthwise filter 1HW(C*multiplier), dense filter OI

Padding is SAME or VALID; quantized cells of padding stand for 0. The integer results are exact:
see `kernels.accumulate` and `kernels.linear`. Float values times an integer filter are the hybrid
form, which quantizes the values itself: see `kernels.hybrid`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.accumulate import centered_reals, exact_sums
from ..kernels.hybrid import hybrid_result, image_on_grids, rows_on_grids
from ..kernels.linear import convolution_result, dense_result, product_result
from ..kernels.requantize import bounds_of
from .layout import (
    channels_first,
    channels_last,
    crop_transposed,
    pad_first,
    symmetric,
    window_padding,
)
from .values import QTensor, QType, Value, data_of, needs_out, operator, real_of

_Apply = Callable[[Tensor, Tensor], Tensor]


def clamp_activation(x: Tensor, activation: str) -> Tensor:
    """The fused activation of a float result."""
    least, greatest = bounds_of(activation)
    return x if least is None else x.clamp(least, greatest)


def _convolve(
    x: Tensor,
    filter: Tensor,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: str,
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    """A convolution of channels-first tensors with the file's padding."""
    dims = filter.dim() - 2
    pads = window_padding(x.shape[2:], filter.shape[2:], strides, dilations, padding)
    even = symmetric(pads)
    if even is None:
        x, even = pad_first(x, pads), (0,) * dims
    convolution = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[dims]
    result: Tensor = convolution(
        x,
        filter,
        bias,
        stride=tuple(strides),
        padding=even,
        dilation=tuple(dilations),
        groups=groups,
    )
    return result


def _integer_convolution(
    x: QTensor,
    filter: QTensor,
    weights_first: Tensor,
    bias: Value | None,
    apply: _Apply,
    groups: int,
    out: QType | None,
    activation: str,
    blocks: bool = True,
) -> QTensor:
    """`weights_first`: the filter's integers, output channels first, input channels second."""
    centered, largest = centered_reals(x)
    weights = weights_first.to(torch.float32) - filter.offset  # 0, but for uint8
    exact = exact_sums(channels_first(centered), weights, largest, apply, split=groups == 1)
    bias_data = None if bias is None else data_of(bias)
    target = needs_out(out, "a convolution")
    sums = channels_last(exact)
    return convolution_result(sums, x, filter, bias_data, target, activation, blocks)


BYTE = 255
"""The largest magnitude of an 8-bit integer less its zero point."""


def _hybrid_convolution(
    x: Tensor,
    filter: QTensor,
    weights_first: Tensor,
    bias: Value | None,
    apply: _Apply,
    groups: int,
    activation: str,
    *,
    asymmetric: bool = True,
    pointwise: bool = False,
) -> Tensor:
    """A float image, put on grids of its own."""
    centered, scale = image_on_grids(x, filter, asymmetric=asymmetric, pointwise=pointwise)
    sums = exact_sums(channels_first(centered), weights_first, BYTE, apply, split=groups == 1)
    real_bias = None if bias is None else real_of(bias)
    result = hybrid_result(channels_last(sums), scale, filter, real_bias)
    return clamp_activation(result, activation)


@operator()
def conv_2d(
    x: Value,
    filter: Value,
    bias: Value | None,
    *,
    stride_h: int = 1,
    stride_w: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    padding: str = "SAME",
    fused_activation_function: str = "NONE",
    out: QType | None = None,
) -> Value:
    """CONV_2D: filter OHWI; grouped where its I divides the channels of x."""
    strides, dilations = (stride_h, stride_w), (dilation_h_factor, dilation_w_factor)
    groups = x.shape[-1] // filter.shape[-1]
    if isinstance(x, QTensor) and isinstance(filter, QTensor):
        return _integer_convolution(
            x,
            filter,
            channels_first(filter.values),
            bias,
            lambda a, w: _convolve(a, w, strides, dilations, padding, groups),
            groups,
            out,
            fused_activation_function,
            blocks=False,
        )
    if isinstance(filter, QTensor) and isinstance(x, Tensor):
        return _hybrid_convolution(
            x,
            filter,
            channels_first(data_of(filter)),
            bias,
            lambda a, w: _convolve(a, w, strides, dilations, padding, groups),
            groups,
            fused_activation_function,
            asymmetric=filter.axis is not None,
            pointwise=filter.shape[1:3] == (1, 1) and strides == (1, 1) and groups == 1,
        )
    y = _convolve(
        channels_first(real_of(x)),
        channels_first(real_of(filter)),
        strides,
        dilations,
        padding,
        groups,
        None if bias is None else real_of(bias),
    )
    return clamp_activation(channels_last(y), fused_activation_function)


@operator()
def depthwise_conv_2d(
    x: Value,
    filter: Value,
    bias: Value | None,
    *,
    stride_h: int = 1,
    stride_w: int = 1,
    depth_multiplier: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    padding: str = "SAME",
    fused_activation_function: str = "NONE",
    out: QType | None = None,
) -> Value:
    """DEPTHWISE_CONV_2D: filter 1HWO, its output c reads channel c // depth_multiplier."""
    strides, dilations = (stride_h, stride_w), (dilation_h_factor, dilation_w_factor)
    groups = x.shape[-1]
    if isinstance(x, QTensor) and isinstance(filter, QTensor):
        return _integer_convolution(
            x,
            filter,
            filter.values.movedim(-1, 0),
            bias,
            lambda a, w: _convolve(a, w, strides, dilations, padding, groups),
            groups,
            out,
            fused_activation_function,
        )
    if isinstance(filter, QTensor) and isinstance(x, Tensor):
        return _hybrid_convolution(
            x,
            filter,
            data_of(filter).movedim(-1, 0),
            bias,
            lambda a, w: _convolve(a, w, strides, dilations, padding, groups),
            groups,
            fused_activation_function,
        )
    y = _convolve(
        channels_first(real_of(x)),
        real_of(filter).movedim(-1, 0),
        strides,
        dilations,
        padding,
        groups,
        None if bias is None else real_of(bias),
    )
    return clamp_activation(channels_last(y), fused_activation_function)


@operator()
def fully_connected(
    x: Value,
    filter: Value,
    bias: Value | None = None,
    *,
    keep_num_dims: bool = False,
    asymmetric_quantize_inputs: bool = False,
    fused_activation_function: str = "NONE",
    out: QType | None = None,
) -> Value:
    """FULLY_CONNECTED: filter OI; x is seen as rows of I, and so is the result unless kept."""
    flat = (x.shape.numel() // filter.shape[-1], filter.shape[0])
    shape = (*x.shape[:-1], filter.shape[0]) if keep_num_dims else flat
    if isinstance(x, QTensor) and isinstance(filter, QTensor):
        weights = filter.values.to(torch.float32) - filter.offset
        centered, largest = centered_reals(x)
        rows = centered.reshape(-1, filter.shape[-1])
        sums = exact_sums(rows, weights, largest, functional.linear, split=True)
        result = dense_result(
            sums,
            x,
            filter,
            None if bias is None else data_of(bias),
            needs_out(out, "fully_connected"),
            fused_activation_function,
        )
        return result.with_values(result.values.reshape(shape))
    real_bias = None if bias is None else real_of(bias)
    if isinstance(filter, QTensor) and isinstance(x, Tensor):
        flat_x = x.reshape(-1, filter.shape[-1])
        rows, scale = rows_on_grids(flat_x, filter, asymmetric=asymmetric_quantize_inputs)
        sums = exact_sums(rows, filter.values, BYTE, functional.linear, split=True)
        y = hybrid_result(sums, scale, filter, real_bias)
        return clamp_activation(y, fused_activation_function).reshape(shape)
    real_rows = real_of(x).reshape(-1, filter.shape[-1])
    y = functional.linear(real_rows, real_of(filter), real_bias)
    return clamp_activation(y, fused_activation_function).reshape(shape)


@operator()
def batch_matmul(
    x: Value,
    y: Value,
    *,
    adj_x: bool = False,
    adj_y: bool = False,
    asymmetric_quantize_inputs: bool = False,
    out: QType | None = None,
) -> Value:
    """BATCH_MATMUL: x @ y with the last two dimensions swapped where asked; batches broadcast."""
    if not (isinstance(x, QTensor) and isinstance(y, QTensor)):
        left, right = real_of(x), real_of(y)
        return (left.mT if adj_x else left) @ (right.mT if adj_y else right)
    left, right = (value.centered().to(torch.float64) for value in (x, y))
    product = (left.mT if adj_x else left) @ (right.mT if adj_y else right)
    return product_result(product, x, y, needs_out(out, "batch_matmul"))


@operator()
def transpose_conv(
    x: Value,
    filter: Value,
    bias: Value | None = None,
    *,
    output_shape: Sequence[int],
    stride_h: int = 1,
    stride_w: int = 1,
    padding: str = "SAME",
    fused_activation_function: str = "NONE",
    out: QType | None = None,
) -> Value:
    """TRANSPOSE_CONV: filter OHWI; what falls outside output_shape is dropped."""
    strides = (stride_h, stride_w)

    def apply(a: Tensor, w: Tensor) -> Tensor:
        whole = functional.conv_transpose2d(a, w.movedim(0, 1), stride=strides)
        pads = window_padding(output_shape[1:3], filter.shape[1:3], strides, (1, 1), padding)
        return crop_transposed(whole, pads, output_shape)

    if isinstance(x, QTensor) and isinstance(filter, QTensor):
        return _integer_convolution(
            x,
            filter,
            channels_first(filter.values),
            bias,
            apply,
            1,
            out,
            fused_activation_function,
        )
    if isinstance(filter, QTensor) and isinstance(x, Tensor):
        first = channels_first(data_of(filter))
        return _hybrid_convolution(x, filter, first, bias, apply, 1, fused_activation_function)
    y = channels_last(apply(channels_first(real_of(x)), channels_first(real_of(filter))))
    y = y if bias is None else y + real_of(bias)
    return clamp_activation(y, fused_activation_function)
