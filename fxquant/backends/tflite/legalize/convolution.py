"""Convolutions: CONV_2D, DEPTHWISE_CONV_2D, CONV_3D; one-dimensional ones as one row.

conv2d(x, w, b) {stride=[2,2], padding=[1,1]}
  ->  pad(nhwc(x)), conv_2d {stride 2, VALID}, back to channels first
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value
from .weights import quantized_bias
from .windows import Pads, Window, padding_of, several, windows

Sizes = int | Sequence[int]


@legalize(aten.conv2d.default, quantized=True)
def conv2d(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Value:
    """CONV_2D, or DEPTHWISE_CONV_2D where every channel has its own filters."""
    return _conv(r, x, weight, bias, stride, padding, dilation, groups)


@legalize(aten.conv1d.default, quantized=True)
def conv1d(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Value:
    """CONV_2D over an image of one row."""
    return _conv(r, x, weight, bias, stride, padding, dilation, groups)


@legalize(aten.conv3d.default)
def conv3d(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Value:
    """CONV_3D, one for each group."""
    return _conv(r, x, weight, bias, stride, padding, dilation, groups)


@legalize(aten.convolution.default)
def convolution(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Value:
    """The general form that decompositions make."""
    if transposed:
        from .transposed import transposed_conv

        return transposed_conv(
            r, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return _conv(r, x, weight, bias, stride, padding, dilation, groups)


@legalize(aten.conv1d.padding, aten.conv2d.padding, quantized=True)
def conv_padding(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: str = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Value:
    """padding="same": with an even kernel the odd cell stands after, as in SAME."""
    return _conv(
        r, x, weight, bias, stride, _named_padding(r, weight, padding, dilation), dilation, groups
    )


@legalize(aten.conv3d.padding)
def conv3d_padding(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: str = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Value:
    """As `conv_padding`."""
    return _conv(
        r, x, weight, bias, stride, _named_padding(r, weight, padding, dilation), dilation, groups
    )


def _named_padding(r: Rewriter, weight: Value, padding: str, dilation: Sizes) -> Sizes | Pads:
    kernel = r.shape(weight)[2:]
    if padding == "valid":
        return 0
    totals = [d * (k - 1) for k, d in zip(kernel, several(dilation, len(kernel)), strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _conv(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes | Pads,
    dilation: Sizes,
    groups: int,
) -> Value:
    if len(r.shape(x)) == len(r.shape(weight)) - 1:  # an input without a batch dimension
        whole = r.reshape(x, (1, *r.shape(x)))
        result = _conv(r, whole, weight, bias, stride, padding, dilation, groups)
        return r.reshape(result, r.shape(result)[1:])
    spatial = len(r.shape(x)) - 2
    strides, dilations = several(stride, spatial), several(dilation, spatial)
    found = _windows(r, x, weight, strides, padding, dilations)
    last = r.nhwc(x)
    if spatial == 3:
        return r.nchw(_conv_3d(r, last, weight, bias, found, groups))
    if spatial == 1:
        last = r.reshape(last, (r.shape(last)[0], 1, *r.shape(last)[1:]))
        weight = _with_row(r, weight)
        found = [Window(1, 1, 1, 1, 0, 1), *found]
    result = _conv_2d(r, last, weight, bias, found, groups)
    if spatial == 1:
        batch, _, length, channels = r.shape(result)
        result = r.reshape(result, (batch, length, channels))
    return r.nchw(result)


def _windows(
    r: Rewriter,
    x: Value,
    weight: Value,
    strides: Sequence[int],
    padding: Sizes | Pads,
    dilations: Sequence[int],
) -> list[Window]:
    sizes, kernel = r.shape(x)[2:], r.shape(weight)[2:]
    if isinstance(padding, tuple) and padding and isinstance(padding[0], tuple):
        pads: Pads = padding
        places = [
            (size + before + after - d * (k - 1) - 1) // s + 1
            for size, (before, after), k, s, d in zip(
                sizes, pads, kernel, strides, dilations, strict=True
            )
        ]
        return [
            Window(size, k, s, d, pad[0], n)
            for size, k, s, d, pad, n in zip(
                sizes, kernel, strides, dilations, pads, places, strict=True
            )
        ]
    return windows(sizes, kernel, strides, several(padding, len(sizes)), dilations)  # type: ignore[arg-type]


def _with_row(r: Rewriter, weight: Value) -> Value:
    first, second, length = r.shape(weight)
    return r.reshape(weight, (first, second, 1, length))


def _conv_2d(
    r: Rewriter, x: Value, weight: Value, bias: Value | None, found: list[Window], groups: int
) -> Value:
    """On channels-last data: pad, then the operator."""
    channels, features = r.shape(x)[3], r.shape(weight)[0]
    bias = _bias(r, bias, x, weight, features)
    padding, pads = padding_of(found)
    x = pad_spatial(r, x, pads)
    options = {
        "stride_h": found[0].stride,
        "stride_w": found[1].stride,
        "dilation_h_factor": found[0].dilation,
        "dilation_w_factor": found[1].dilation,
        "padding": padding,
    }
    if groups == channels and groups > 1:
        filters = r.transpose(weight, (1, 2, 3, 0))
        options["depth_multiplier"] = features // channels
        return r.emit(tfl.depthwise_conv_2d, x, filters, bias, out=r.out, **options)
    filters = r.transpose(weight, (0, 2, 3, 1))
    return r.emit(tfl.conv_2d, x, filters, bias, out=r.out, **options)


def _conv_3d(
    r: Rewriter, x: Value, weight: Value, bias: Value | None, found: list[Window], groups: int
) -> Value:
    padding, pads = padding_of(found)
    x = pad_spatial(r, x, pads)
    options: dict[str, Any] = {"padding": padding}
    for letter, each in zip("dhw", found, strict=True):
        options[f"stride_{letter}"] = each.stride
        options[f"dilation_{letter}_factor"] = each.dilation
    features, inputs = r.shape(weight)[0] // groups, r.shape(weight)[1]
    bias = _bias(r, bias, x, weight, r.shape(weight)[0])
    parts = []
    for group in range(groups):
        part = r.slice(x, 4, group * inputs, inputs)
        filters = r.transpose(r.slice(weight, 0, group * features, features), (2, 3, 4, 1, 0))
        offset = r.slice(bias, 0, group * features, features)
        parts.append(r.emit(tfl.conv_3d, part, filters, offset, **options))
    return parts[0] if groups == 1 else r.emit(tfl.concatenation, parts, axis=4)


def pad_spatial(r: Rewriter, x: Value, pads: Pads) -> Value:
    """PAD the axes between batch and channels of channels-last data with zeros."""
    if not any(before or after for before, after in pads):
        return x
    return r.emit(tfl.pad, x, paddings=((0, 0), *pads, (0, 0)))


def _bias(r: Rewriter, bias: Value | None, x: Value, weight: Value, features: int) -> Value:
    """The bias that the kernels insist on: zeros where there is none, integers for integers."""
    if bias is None:
        bias = r.constant(torch.zeros(features), "bias")
    return layer_bias(r, bias, x, weight)


def layer_bias(r: Rewriter, bias: Value, x: Value, weight: Value) -> Value:
    """A bias in the form that the layer adds it: float, or steps of input times weight scale."""
    kind: QType | None = r.qtype(x)
    if kind is None:
        return r.float(bias)
    scales = r.type(weight).quantization
    if scales is None or not isinstance(bias, Constant):
        raise Unsupported("an integer layer needs quantized weights and a constant bias")
    if bias.quantization is not None:
        bias = bias.dequantize()
    return quantized_bias(bias, kind.scale, scales, wide=kind.dtype == "int16")
