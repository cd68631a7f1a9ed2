"""The RELU family, LEAKY_RELU, PRELU and ABS of 8- and 16-bit values: rescaled piece by piece."""

from __future__ import annotations

import torch
from torch import Tensor

from .quantized import QTensor, QType
from .requantize import finish, float32, rescale, twice
from .selection import delegated

# XNNPACK's multipliers of 8 fractional bits hold ratios of scales between these.
_LEAST_RATIO, _GREATEST_RATIO = 2.0**-8, 2.0**7


def _ratio(x: QTensor, out: QType) -> Tensor:
    return (x.scale / float32(out.scale)).to(torch.float64)


def relu_integers(x: QTensor, out: QType, activation: str) -> QTensor:
    """RELU, RELU6, RELU_N1_TO_1, RELU_0_TO_1: rescale, then clamp to the activation's range."""
    return rescale(x.centered(), _ratio(x, out), twice, out, activation)


def leaky_relu_integers(x: QTensor, alpha: float, out: QType) -> QTensor:
    """One multiplier for each sign; a delegate's has 8 fractional bits."""
    centered = x.centered()
    ratio = x.scale / float32(out.scale)
    steep = abs(alpha) * float(ratio) >= _LEAST_RATIO
    if steep and delegated(x.dtype, _LEAST_RATIO, _GREATEST_RATIO, float(ratio)):
        above, below = (
            torch.round(256 * part).to(torch.int64) for part in (ratio, ratio * float32(alpha))
        )
        slope = torch.where(centered >= 0, above, below)
        return finish((centered * slope + 128) >> 8, out)
    slope = ((x.scale * float32(alpha)) / float32(out.scale)).to(torch.float64)
    below = twice(slope.abs())(centered) * int(torch.sign(slope))
    return finish(torch.where(centered >= 0, twice(_ratio(x, out))(centered), below), out)


def prelu_integers(x: QTensor, alpha: QTensor, out: QType) -> QTensor:
    """Below zero the product with alpha, rescaled at once."""
    centered = x.centered()
    product_ratio = ((x.scale * alpha.scale) / float32(out.scale)).to(torch.float64)
    below = twice(product_ratio)(centered * alpha.centered())
    return finish(torch.where(centered >= 0, twice(_ratio(x, out))(centered), below), out)


def abs_integers(x: QTensor, out: QType) -> QTensor:
    """|x| rescaled."""
    return rescale(x.centered().abs(), _ratio(x, out), twice, out)
