"""The numbers of affine quantization: real = scale * (integer - zero_point).

Pure functions on tensors, no graph and no backend. Scales are float32, because that is what files
store and kernels read; a zero point is derived from the *stored* scale. Every range contains 0, so
that padding and ReLU are exact.

    >>> scale, zero_point = affine_parameters(torch.tensor(-1.0), torch.tensor(3.0), -128, 127)
    >>> round(float(scale), 6), int(zero_point)
    (0.015686, -64)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_SCALE = 2.0**-100
"""Below this, products of two scales leave the normal float32 numbers."""

EMPTY_RANGE = 1.0
"""The magnitude a range gets where all values are 0: any scale is exact, and 0 is refused by
kernels."""


class Parameters(NamedTuple):
    """Scale (float32) and zero point (int32), each of shape [] or [channels]."""

    scale: Tensor
    zero_point: Tensor


def round_half_even(value: Tensor) -> Tensor:
    """Round to the nearest integer, ties to the even one.

    >>> round_half_even(torch.tensor([0.5, 1.5, -0.5, -1.5])).tolist()
    [0.0, 2.0, -0.0, -2.0]
    """
    return torch.round(value)


def round_half_away(value: Tensor) -> Tensor:
    """Round to the nearest integer, ties away from 0.

    >>> round_half_away(torch.tensor([0.5, 1.5, -0.5, 0.49999997])).tolist()
    [1.0, 2.0, -1.0, 0.0]
    """
    whole = torch.trunc(value)
    # The difference is exact, whereas value + 0.5 may itself round up.
    return whole + torch.sign(value) * ((value - whole).abs() >= 0.5)


def covering_zero(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest range that holds low, high and 0.

    >>> covering_zero(torch.tensor(1.0), torch.tensor(3.0))
    (tensor(0.), tensor(3.))
    """
    return low.clamp(max=0.0), high.clamp(min=0.0)


def affine_parameters(low: Tensor, high: Tensor, qmin: int, qmax: int) -> Parameters:
    """Scale and zero point that map [low, high] onto [qmin, qmax].

    >>> affine_parameters(torch.tensor(0.0), torch.tensor(6.0), -128, 127)
    Parameters(scale=tensor(0.0235), zero_point=tensor(-128, dtype=torch.int32))
    """
    low, high = covering_zero(low.double(), high.double())
    high = torch.where(high > low, high, EMPTY_RANGE)
    scale = stored_scale((high - low) / (qmax - qmin))
    zero_point = round_half_even(qmin - low / scale.double()).clamp(qmin, qmax)
    return Parameters(scale, zero_point.to(torch.int32))


def symmetric_parameters(low: Tensor, high: Tensor, qmin: int, qmax: int) -> Parameters:
    """The smallest scale that represents low and high around an integer zero.

    The zero point is 0 for signed ranges and the middle, rounded up, for unsigned ones.

    >>> symmetric_parameters(torch.tensor(-2.54), torch.tensor(1.0), -127, 127)
    Parameters(scale=tensor(0.0200), zero_point=tensor(0, dtype=torch.int32))
    """
    low, high = covering_zero(low.double(), high.double())
    middle = symmetric_zero_point(qmin, qmax)
    scale = torch.maximum(low / (qmin - middle), high / (qmax - middle))
    scale = stored_scale(torch.where(scale > 0, scale, EMPTY_RANGE / (qmax - middle)))
    return Parameters(scale, torch.full_like(scale, middle, dtype=torch.int32))


def symmetric_zero_point(qmin: int, qmax: int) -> int:
    """The integer that stands for 0 in a symmetric range.

    >>> symmetric_zero_point(-127, 127), symmetric_zero_point(0, 255)
    (0, 128)
    """
    return 0 if qmin < 0 else (qmin + qmax + 1) // 2


def stored_scale(scale: Tensor) -> Tensor:
    """A scale as files store it: float32 and at least `SMALLEST_SCALE`.

    >>> float(stored_scale(torch.tensor(0.0))) == SMALLEST_SCALE
    True
    """
    return scale.clamp(min=SMALLEST_SCALE).to(torch.float32)


def along(parameter: Tensor, rank: int, axis: int | None) -> Tensor:
    """A per-channel parameter, shaped to broadcast along `axis` of a tensor of that rank."""
    if axis is None or parameter.dim() == 0:
        return parameter
    shape = [1] * rank
    shape[axis] = -1
    return parameter.reshape(shape)


def quantize(
    value: Tensor,
    parameters: Parameters,
    qmin: int,
    qmax: int,
    axis: int | None = None,
) -> Tensor:
    """The nearest integers (ties to even), saturated, as int32.

    >>> grid = Parameters(torch.tensor(0.5), torch.tensor(-3, dtype=torch.int32))
    >>> quantize(torch.tensor([0.0, 0.6, 1e9]), grid, -128, 127).tolist()
    [-3, -2, 127]
    """
    scale = along(parameters.scale, value.dim(), axis)
    zero_point = along(parameters.zero_point, value.dim(), axis)
    shifted = round_half_even(value / scale) + zero_point
    return shifted.clamp(qmin, qmax).to(torch.int32)


def dequantize(integers: Tensor, parameters: Parameters, axis: int | None = None) -> Tensor:
    """The real numbers that integers stand for.

    >>> grid = Parameters(torch.tensor(0.5), torch.tensor(-3, dtype=torch.int32))
    >>> dequantize(torch.tensor([-3, -2, 127]), grid).tolist()
    [0.0, 0.5, 65.0]
    """
    scale = along(parameters.scale, integers.dim(), axis)
    zero_point = along(parameters.zero_point, integers.dim(), axis)
    return (integers - zero_point).to(torch.float32) * scale


def wide_enough_for_bias(weight_scale: Tensor, bias: Tensor, input_scale: float) -> Tensor:
    """Weight scales raised where the bias, stored as int32 in input_scale * weight_scale, would
    overflow.

    Dead channels have weights near 0 beside an ordinary bias; half of the int32 range is left for
    the sum of products.

    >>> raised = wide_enough_for_bias(torch.tensor([1e-12, 0.01]), torch.tensor([0.5, 0.5]), 0.02)
    >>> [f"{scale:.2g}" for scale in raised.tolist()]
    ['2.3e-08', '0.01']
    """
    least = bias.detach().double().abs() / (input_scale * 2.0**30)
    return torch.maximum(weight_scale, least.to(torch.float32))
