"""From accumulators to the output's integers: multiply, round, shift, clamp.

    q_out = clamp(round(accumulator * real) + zero_point)

The schemes are those that the runtime was measured to round with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fxquant.errors import InvalidGraph

from .fixed_point import (
    multiplier,
    one_or_many,
    round_away,
    round_half_away,
    scale_twice,
    scale_up,
    scale_wide,
)
from .quantized import QTensor, QType, quantized
from .selection import kernels

Scheme = Callable[[Tensor, Tensor], Tensor]

_BLOCK = 8

RANGES: dict[torch.dtype, tuple[int, int]] = {
    torch.int8: (-128, 127),
    torch.uint8: (0, 255),
    torch.int16: (-32768, 32767),
    torch.int32: (-(2**31), 2**31 - 1),
}

BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


def float32(number: float) -> Tensor:
    """A number as the kernels hold it."""
    return torch.tensor(number, dtype=torch.float32)


def activation_range(activation: str, out: QType) -> tuple[int, int]:
    """The least and the greatest integer that a fused activation lets through.

    >>> activation_range("RELU6", QType("int8", 0.05, -128))
    (-128, -8)
    """
    low, high = RANGES[out.torch_dtype]
    least, greatest = bounds_of(activation)
    if least is not None:
        low = max(low, out.zero_point + round_away(float(float32(least) / float32(out.scale))))
    if greatest is not None:
        high = min(high, out.zero_point + round_away(float(float32(greatest) / float32(out.scale))))
    return low, high


def bounds_of(activation: str) -> tuple[float | None, float | None]:
    """The bounds of a fused activation, None where it has none."""
    if activation not in BOUNDS:
        known = ", ".join(BOUNDS)
        raise InvalidGraph(
            f"no kernel knows the fused activation {activation!r}", fix=f"use {known}"
        )
    return BOUNDS[activation]


def finish(shifted: Tensor, out: QType, activation: str = "NONE") -> QTensor:
    """Add the zero point, clamp, and give the integers their type."""
    low, high = activation_range(activation, out)
    return quantized(shifted.add_(out.zero_point).clamp_(low, high), out)


def twice(accumulator: Tensor, real: Tensor) -> Tensor:
    """Two roundings, the second away from zero."""
    return scale_twice(accumulator, multiplier(real))


def up(accumulator: Tensor, real: Tensor) -> Tensor:
    """Two roundings, ties up."""
    return scale_up(accumulator, multiplier(real))


def wide(accumulator: Tensor, real: Tensor) -> Tensor:
    """One rounding of an int64 accumulator by a 16-bit mantissa."""
    return scale_wide(accumulator, multiplier(real))


def double(accumulator: Tensor, real: Tensor) -> Tensor:
    """One rounding in float64, ties away from zero."""
    return round_half_away(accumulator.to(torch.float64) * one_or_many(real)).to(torch.int64)


def single(accumulator: Tensor, scale: Tensor, out: QType, activation: str = "NONE") -> QTensor:
    """XNNPACK: one rounding in float32 to even; saturates at the top before it rounds."""
    _, high = activation_range(activation, out)
    product = accumulator.to(torch.float32) * one_or_many(scale.to(torch.float32))
    rounded = product.clamp_(max=float(high - out.zero_point)).round_()
    return finish(rounded.to(torch.int64), out, activation)


def up_in_blocks(accumulator: Tensor, real: Tensor) -> Tensor:
    """Channels in blocks of 8 as `up`, those that are left as `twice`."""
    channels = accumulator.shape[-1]
    whole = channels - channels % _BLOCK
    if whole in (0, channels):
        return up(accumulator, real) if whole else twice(accumulator, real)
    reals = real.expand(channels)
    vector = up(accumulator[..., :whole], reals[:whole])
    return torch.cat([vector, twice(accumulator[..., whole:], reals[whole:])], -1)


def convolution_scheme(int16: bool, wide_bias: bool, blocks: bool) -> Scheme:
    """How the plain kernels round convolutions; int16 with an int64 bias has its own way.

    Args:
        int16: the activations are int16.
        wide_bias: the bias is int64.
        blocks: DEPTHWISE_CONV_2D and TRANSPOSE_CONV, whose optimized kernels have a scalar tail.
    """
    if int16 and wide_bias:
        return wide
    if kernels.get() == "reference":
        return twice
    return up_in_blocks if blocks else up


def dense_scheme(int16: bool, wide_bias: bool) -> Scheme:
    """How the plain kernels round FULLY_CONNECTED."""
    if kernels.get() == "reference" or (int16 and wide_bias):
        return double
    return up
