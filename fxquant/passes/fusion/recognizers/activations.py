"""Activations written out by hand become the operator that every target knows.

    x * 0.5 * (1 + erf(x / sqrt(2)))    ->  gelu(x)
    x * relu6(x + 3) / 6                ->  hardswish(x)
    x * tanh(log(1 + exp(x)))           ->  mish(x)

The order of factors and summands does not matter, nor whether x³ is a power or a product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fxquant.passes.fusion.registry import register_fusion
from fxquant.passes.fusion.wildcards import any_float

CLAMPS = ("relu6", "clamp", "hardtanh")
ROOT_2_BY_PI = math.sqrt(2 / math.pi)


@register_fusion("gelu-erf", needs=("erf",), replace=F.gelu)
def gelu_erf(x: Tensor) -> Tensor:
    """The exact gelu: x times the probability that a normal number is smaller."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_cubic(x: Tensor) -> Tensor:
    """The approximation of gelu with its polynomial in a sum."""
    return 0.5 * x * (1 + torch.tanh(ROOT_2_BY_PI * (x + 0.044715 * x**3)))


def gelu_factored(x: Tensor) -> Tensor:
    """The same with x taken out of the polynomial."""
    return 0.5 * x * (1 + torch.tanh(ROOT_2_BY_PI * x * (1 + 0.044715 * x**2)))


def gelu_as_tanh(x: Tensor) -> Tensor:
    """gelu in its approximation by tanh."""
    return F.gelu(x, approximate="tanh")


register_fusion("gelu-tanh", needs=("tanh",), replace=gelu_as_tanh, spellings=(gelu_factored,))(
    gelu_cubic
)


@register_fusion("silu", needs=("sigmoid",), replace=F.silu)
def silu(x: Tensor) -> Tensor:
    """Also called swish."""
    return x * torch.sigmoid(x)


def silu_by_exp(x: Tensor) -> Tensor:
    """silu with the sigmoid written out."""
    return x / (1 + torch.exp(-x))


register_fusion("silu-exp", needs=("exp",), replace=F.silu)(silu_by_exp)


@register_fusion("sigmoid-exp", needs=("exp",), replace=torch.sigmoid)
def sigmoid_by_exp(x: Tensor) -> Tensor:
    """The logistic function by its definition."""
    return 1 / (1 + torch.exp(-x))


@register_fusion("hardswish", needs=CLAMPS, replace=F.hardswish)
def hardswish(x: Tensor) -> Tensor:
    """x * relu6(x + 3) / 6, its constant anywhere."""
    return x * F.relu6(x + 3) / 6


def hardswish_of_hardsigmoid(x: Tensor) -> Tensor:
    """hardswish as a gate on itself."""
    return x * F.hardsigmoid(x)


register_fusion("hardswish-gate", needs=("hardsigmoid",), replace=F.hardswish)(
    hardswish_of_hardsigmoid
)


def hardsigmoid_scaled(x: Tensor) -> Tensor:
    """hardsigmoid as a line between 0 and 1."""
    return torch.clamp(x / 6 + 0.5, 0, 1)


@register_fusion(
    "hardsigmoid", needs=CLAMPS, replace=F.hardsigmoid, spellings=(hardsigmoid_scaled,)
)
def hardsigmoid(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6."""
    return F.relu6(x + 3) / 6


def mish_by_log(x: Tensor) -> Tensor:
    """mish with softplus written out."""
    return x * torch.tanh(torch.log(1 + torch.exp(x)))


def mish_by_log1p(x: Tensor) -> Tensor:
    """mish with softplus written out for small numbers."""
    return x * torch.tanh(torch.log1p(torch.exp(x)))


@register_fusion("mish", needs=("tanh",), replace=F.mish, spellings=(mish_by_log, mish_by_log1p))
def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x))."""
    return x * torch.tanh(F.softplus(x))


def leaky_relu_as_one(x: Tensor, slope: float = any_float) -> Tensor:
    """leaky_relu as one operator."""
    return F.leaky_relu(x, slope)


@register_fusion(
    "leaky-relu",
    needs=("maximum",),
    replace=leaky_relu_as_one,
    check=lambda match: 0 <= match["slope"] <= 1 or "max(x, a x) is leaky_relu for a in 0 … 1 only",
)
def leaky_relu(x: Tensor, slope: float = any_float) -> Tensor:
    """max(x, slope * x)."""
    return torch.maximum(x, x * slope)
