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
    float32,
    rescale,
    single_for,
    twice,
    wide,
)
from .selection import kernels

_DELEGATED = (torch.int8, torch.uint8)


def convolution_result(
    sums: Tensor,
    x: QTensor,
    weights: QTensor,
    bias: Tensor | None,
    out: QType,
    activation: str,
    blocks: bool,
) -> QTensor:
    """CONV_2D; with blocks DEPTHWISE_CONV_2D and TRANSPOSE_CONV. Channels last."""
    int4 = weights.storage is not None
    if kernels.get() == "xnnpack" and x.dtype in _DELEGATED and not int4:
        real, scheme = _float32_ratio(x, weights, out), single_for(out, activation)
    else:
        ratio = _narrow_ratio if x.dtype == torch.uint8 else _wide_ratio
        real = ratio(x, weights, out)
        scheme = convolution_scheme(x.dtype == torch.int16, _is_wide(bias), blocks)
    return rescale(sums, real, scheme, out, activation, bias)


def dense_result(
    sums: Tensor,
    x: QTensor,
    weights: QTensor,
    bias: Tensor | None,
    out: QType,
    activation: str,
) -> QTensor:
    """FULLY_CONNECTED."""
    odd_int4 = weights.storage is not None and weights.shape[-1] % 2 == 1
    if kernels.get() == "xnnpack" and x.dtype in _DELEGATED and not odd_int4:
        real, scheme = _float32_ratio(x, weights, out), single_for(out, activation)
    else:
        ratio = _narrow_ratio if weights.axis is None else _wide_ratio
        real = ratio(x, weights, out)
        scheme = dense_scheme(x.dtype == torch.int16, _is_wide(bias))
    return rescale(sums, real, scheme, out, activation, bias)


def product_result(sums: Tensor, x: QTensor, y: QTensor, out: QType) -> QTensor:
    """BATCH_MATMUL."""
    if kernels.get() == "xnnpack" and x.dtype in _DELEGATED:
        return rescale(sums, _float32_ratio(x, y, out), single_for(out), out)
    scheme: Scheme = wide if x.dtype == torch.int16 else twice
    return rescale(sums, _narrow_ratio(x, y, out), scheme, out)


def _is_wide(bias: Tensor | None) -> bool:
    return bias is not None and bias.dtype == torch.int64


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
