"""From accumulators to the output's integers: multiply, round, shift, clamp.

    q_out = clamp(round(accumulator * real) + zero_point)

The schemes are those that the runtime was measured to round with.
"""

from __future__ import annotations

import functools
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
from .pieces import in_pieces
from .quantized import QTensor, QType, quantized
from .selection import kernels

Rounding = Callable[[Tensor], Tensor]  # int64 accumulators -> int64, multiplied and rounded
Scheme = Callable[[Tensor], Rounding]  # multipliers, one or one per channel -> rounding

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
    return quantized((shifted + out.zero_point).clamp_(low, high), out)


def rescale(
    accumulator: Tensor,
    by: Tensor,
    scheme: Scheme,
    out: QType,
    activation: str = "NONE",
    bias: Tensor | None = None,
) -> QTensor:
    """(accumulator + bias) * by in a rounding scheme, then as `finish`; channels last."""
    low, high = activation_range(activation, out)
    rounding = scheme(by)

    def piece(part: Tensor) -> Tensor:
        integers = part.to(torch.int64)
        biased = integers if bias is None else integers + bias
        return rounding(biased).add_(out.zero_point).clamp_(low, high)

    if not accumulator.dim():
        return quantized(piece(accumulator), out)
    rows = accumulator.reshape(-1, accumulator.shape[-1])
    return quantized(in_pieces(piece, out.torch_dtype, rows).reshape(accumulator.shape), out)


def twice(real: Tensor) -> Rounding:
    """Two roundings, the second away from zero."""
    return functools.partial(scale_twice, by=multiplier(real))


def up(real: Tensor) -> Rounding:
    """Two roundings, ties up."""
    return functools.partial(scale_up, by=multiplier(real))


def wide(real: Tensor) -> Rounding:
    """One rounding of an int64 accumulator by a 16-bit mantissa."""
    return functools.partial(scale_wide, by=multiplier(real))


def double(real: Tensor) -> Rounding:
    """One rounding in float64, ties away from zero."""
    by = one_or_many(real)
    return lambda x: round_half_away(x.to(torch.float64) * by).to(torch.int64)


def single(highest: int) -> Scheme:
    """XNNPACK: one rounding in float32 to even; saturates at the top before it rounds."""

    def scheme(real: Tensor) -> Rounding:
        by, top = one_or_many(real.to(torch.float32)), float(highest)
        return lambda x: (x.to(torch.float32) * by).clamp_(max=top).round_().to(torch.int64)

    return scheme


def single_for(out: QType, activation: str = "NONE") -> Scheme:
    """`single` for a result of this type."""
    return single(activation_range(activation, out)[1] - out.zero_point)


def up_in_blocks(real: Tensor) -> Rounding:
    """Channels in blocks of 8 as `up`, those that are left as `twice`."""

    def rounding(x: Tensor) -> Tensor:
        channels = x.shape[-1]
        whole = channels - channels % _BLOCK
        reals = real.expand(channels)
        vector = up(reals[:whole])(x[..., :whole])
        return torch.cat([vector, twice(reals[whole:])(x[..., whole:])], -1)

    return rounding


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
