"""Transposed convolutions: TRANSPOSE_CONV, its borders cut to what torch's padding leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .convolution import layer_bias
from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value
from .windows import several

Sizes = int | Sequence[int]


@legalize(aten.conv_transpose1d.default, aten.conv_transpose2d.input, quantized=True)
def transposed_conv(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Value:
    """TRANSPOSE_CONV, one a group; one-dimensional ones as one row."""
    spatial = len(r.shape(weight)) - 2
    if spatial == 3:
        return conv_transpose3d(
            r, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    if len(r.shape(x)) == spatial + 1:
        whole = r.reshape(x, (1, *r.shape(x)))
        result = transposed_conv(
            r, whole, weight, bias, stride, padding, output_padding, groups, dilation
        )
        return r.reshape(result, r.shape(result)[1:])
    strides, pads = several(stride, spatial), several(padding, spatial)
    extra, dilations = several(output_padding, spatial), several(dilation, spatial)
    weight = _dilated(weight, dilations)
    last = r.nhwc(x)
    if spatial == 1:
        last = r.reshape(last, (r.shape(last)[0], 1, *r.shape(last)[1:]))
        first, second, length = r.shape(weight)
        weight = r.reshape(weight, (first, second, 1, length))
        strides, pads, extra = (1, *strides), (0, *pads), (0, *extra)
    result = _grouped(r, last, weight, bias, strides, pads, extra, groups)
    if spatial == 1:
        batch, _, length, channels = r.shape(result)
        result = r.reshape(result, (batch, length, channels))
    return r.nchw(result)


def _dilated(weight: Value, dilation: Sequence[int]) -> Value:
    """A dilated filter written out with its zeros; the operator has no dilation."""
    if all(each == 1 for each in dilation):
        return weight
    if not isinstance(weight, Constant):
        raise Unsupported("a dilated transposed convolution needs constant weights")
    narrow = None if weight.narrow is None else _spread(weight.narrow, dilation)
    return replace(_spread(weight, dilation), narrow=narrow)


def _spread(weight: Constant, dilation: Sequence[int]) -> Constant:
    data = weight.data
    for axis, step in enumerate(dilation, start=2):
        size = (data.shape[axis] - 1) * step + 1
        wide = data.new_zeros([*data.shape[:axis], size, *data.shape[axis + 1 :]])
        wide.index_copy_(axis, torch.arange(0, size, step), data)
        data = wide
    return replace(weight, data=data)


def _grouped(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None,
    strides: Sequence[int],
    pads: Sequence[int],
    extra: Sequence[int],
    groups: int,
) -> Value:
    inputs, features = r.shape(weight)[0] // groups, r.shape(weight)[1]
    parts = []
    for group in range(groups):
        part = r.slice(x, 3, group * inputs, inputs)
        filters = r.slice(weight, 0, group * inputs, inputs)
        offset = None if bias is None else r.slice(bias, 0, group * features, features)
        parts.append(_one(r, part, filters, offset, strides, pads, extra))
    return parts[0] if groups == 1 else r.emit(tfl.concatenation, parts, axis=3)


def _one(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None,
    strides: Sequence[int],
    pads: Sequence[int],
    extra: Sequence[int],
) -> Value:
    batch, *sizes, _ = r.shape(x)
    features, kernel = r.shape(weight)[1], r.shape(weight)[2:]
    full = [(n - 1) * s + k for n, s, k in zip(sizes, strides, kernel, strict=True)]
    wanted = [f - 2 * p + e for f, p, e in zip(full, pads, extra, strict=True)]
    same = all(map(_is_same, sizes, strides, kernel, pads, wanted))
    # Cells beyond what the kernel reaches hold only the bias.
    needed = wanted if same else [max(f, p + n) for f, p, n in zip(full, pads, wanted, strict=True)]
    if bias is None:
        bias = r.constant(torch.zeros(features), "bias")
    result: Value = r.emit(
        tfl.transpose_conv,
        x,
        r.transpose(weight, (1, 2, 3, 0)),
        layer_bias(r, bias, x, r.transpose(weight, (1, 2, 3, 0))),
        output_shape=(batch, *needed, features),
        stride_h=strides[0],
        stride_w=strides[1],
        padding="SAME" if same else "VALID",
        out=r.out,
    )
    if same:
        return result
    begin = (0, *pads, 0)
    size = (batch, *wanted, features)
    if size == r.shape(result):
        return result
    return r.emit(tfl.slice, result, begin=begin, size=size)


def _is_same(size: int, stride: int, kernel: int, pad: int, wanted: int) -> bool:
    missing = max((size - 1) * stride + kernel - wanted, 0)
    return -(-wanted // stride) == size and missing // 2 == pad and kernel >= stride


@legalize(aten.conv_transpose3d.input)
def conv_transpose3d(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Value:
    """CONV_3D_TRANSPOSE in VALID form, its borders cut."""
    strides, pads = several(stride, 3), several(padding, 3)
    extra, dilations = several(output_padding, 3), several(dilation, 3)
    if groups != 1 or any(e > p for e, p in zip(extra, pads, strict=True)):
        raise Unsupported("a 3d transposed convolution with groups or output_padding > padding")
    weight = _dilated(weight, dilations)
    last = r.nhwc(x)
    batch, *sizes, _ = r.shape(last)
    features, kernel = r.shape(weight)[1], r.shape(weight)[2:]
    full = [(n - 1) * s + k for n, s, k in zip(sizes, strides, kernel, strict=True)]
    wanted = [f - 2 * p + e for f, p, e in zip(full, pads, extra, strict=True)]
    if bias is None:
        bias = r.constant(torch.zeros(features), "bias")
    options: dict[str, Any] = {f"stride_{n}": s for n, s in zip("dhw", strides, strict=True)}
    result: Value = r.emit(
        tfl.conv_3d_transpose,
        last,
        r.transpose(weight, (2, 3, 4, 1, 0)),
        bias,
        output_shape=(batch, *full, features),
        padding="VALID",
        **options,
    )
    if full != wanted:
        result = r.emit(tfl.slice, result, begin=(0, *pads, 0), size=(batch, *wanted, features))
    return r.nchw(result)


@legalize(aten.col2im.default)
def col2im(
    r: Rewriter,
    x: Value,
    output_size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """TRANSPOSE_CONV with a filter that puts each column's cells at their places."""
    cells = kernel[0] * kernel[1]
    batch = r.shape(x)[0] if len(r.shape(x)) == 3 else 1
    channels = r.shape(x)[-2] // cells
    places = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(output_size, kernel, dilation, padding, stride, strict=True)
    ]
    columns = r.reshape(x, (batch * channels, cells, *places))
    filters = r.constant(torch.eye(cells).reshape(cells, 1, *kernel), "cells")
    reached = [
        (n - 1) * s + d * (k - 1) + 1 - 2 * p
        for n, s, d, k, p in zip(places, stride, dilation, kernel, padding, strict=True)
    ]
    extra = [size - reach for size, reach in zip(output_size, reached, strict=True)]
    result = transposed_conv(r, columns, filters, None, stride, padding, extra, 1, dilation)
    return r.reshape(result, r.result_shape)
