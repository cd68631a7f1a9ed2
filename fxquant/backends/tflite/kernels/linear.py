"""Requantizing the accumulators of convolutions, dense layers and matrix products.

    q = clamp(round(accumulator * s_in * s_w / s_out) + zero_point)

The precision in which the scales are multiplied is part of the result, and is written out here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .quantized import QTensor, QType
from .requantize import (
    Scheme,
    convolution_scheme,
    dense_scheme,
    finish,
    float32,
    single,
    twice,
    wide,
)
from .selection import kernels

_DELEGATED = (torch.int8, torch.uint8)


def convolution_result(
    accumulator: Tensor,
    x: QTensor,
    weights: QTensor,
    bias: Tensor | None,
    out: QType,
    activation: str,
    blocks: bool,
) -> QTensor:
    """CONV_2D; with blocks DEPTHWISE_CONV_2D and TRANSPOSE_CONV. Channels last."""
    if kernels.get() == "xnnpack" and x.dtype in _DELEGATED:
        return single(accumulator, _float32_ratio(x, weights, out), out, activation)
    int16 = x.dtype == torch.int16
    scheme = convolution_scheme(int16, bias is not None and bias.dtype == torch.int64, blocks)
    narrow = x.dtype == torch.uint8
    real = _narrow_ratio(x, weights, out) if narrow else _wide_ratio(x, weights, out)
    return finish(scheme(accumulator, real), out, activation)


def dense_result(
    accumulator: Tensor,
    x: QTensor,
    weights: QTensor,
    bias: Tensor | None,
    out: QType,
    activation: str,
) -> QTensor:
    """FULLY_CONNECTED."""
    if kernels.get() == "xnnpack" and x.dtype in _DELEGATED:
        return single(accumulator, _float32_ratio(x, weights, out), out, activation)
    scheme = dense_scheme(x.dtype == torch.int16, bias is not None and bias.dtype == torch.int64)
    per_tensor = weights.axis is None
    real = _narrow_ratio(x, weights, out) if per_tensor else _wide_ratio(x, weights, out)
    return finish(scheme(accumulator, real), out, activation)


def product_result(accumulator: Tensor, x: QTensor, y: QTensor, out: QType) -> QTensor:
    """BATCH_MATMUL."""
    if kernels.get() == "xnnpack" and x.dtype in _DELEGATED:
        return single(accumulator, _float32_ratio(x, y, out), out)
    scheme: Scheme = wide if x.dtype == torch.int16 else twice
    return finish(scheme(accumulator, _narrow_ratio(x, y, out)), out)


def _wide_ratio(x: QTensor, weights: QTensor, out: QType) -> Tensor:
    """Every product in float64."""
    product = x.scale.to(torch.float64) * weights.scale.to(torch.float64)
    return product / float32(out.scale).to(torch.float64)


def _narrow_ratio(x: QTensor, weights: QTensor, out: QType) -> Tensor:
    """The product of the input scales rounded to float32 first."""
    product = (x.scale * weights.scale).to(torch.float64)
    return product / float32(out.scale).to(torch.float64)


def _float32_ratio(x: QTensor, weights: QTensor, out: QType) -> Tensor:
    """XNNPACK: float32, left to right."""
    return (x.scale * weights.scale) / float32(out.scale)
