"""Activations and normalizations; each has its own scale for the result."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.hard_swish import hard_swish_integers
from ..kernels.interpolation import interpolated
from ..kernels.log_softmax import log_softmax_integers
from ..kernels.lookup import by_table, table_lookup
from ..kernels.rectify import leaky_relu_integers, prelu_integers, relu_integers
from ..kernels.requantize import bounds_of
from ..kernels.selection import kernels
from ..kernels.sigmoid import logistic_int16, tanh_int16
from ..kernels.softmax import softmax_integers
from ..kernels.softmax16 import softmax_int16
from .values import QTensor, QType, Value, needs_out, operator, real_of


def _rectified(x: Value, activation: str, out: QType | None) -> Value:
    if isinstance(x, QTensor):
        target = needs_out(out, activation.lower())
        return by_table(lambda data: relu_integers(data, target, activation), x)
    least, greatest = bounds_of(activation)
    return x.clamp(least, greatest)


@operator()
def relu(x: Value, *, out: QType | None = None) -> Value:
    """RELU."""
    return _rectified(x, "RELU", out)


@operator()
def relu6(x: Value, *, out: QType | None = None) -> Value:
    """RELU6: clamp to [0, 6]."""
    return _rectified(x, "RELU6", out)


@operator()
def relu_n1_to_1(x: Value, *, out: QType | None = None) -> Value:
    """RELU_N1_TO_1: clamp to [-1, 1]."""
    return _rectified(x, "RELU_N1_TO_1", out)


@operator()
def relu_0_to_1(x: Value, *, out: QType | None = None) -> Value:
    """RELU_0_TO_1: clamp to [0, 1]."""
    return _rectified(x, "RELU_0_TO_1", out)


@operator()
def leaky_relu(x: Value, *, alpha: float, out: QType | None = None) -> Value:
    """LEAKY_RELU."""
    if isinstance(x, QTensor):
        target = needs_out(out, "leaky_relu")
        return by_table(lambda data: leaky_relu_integers(data, alpha, target), x)
    return functional.leaky_relu(x, alpha)


@operator()
def prelu(x: Value, alpha: Value, *, out: QType | None = None) -> Value:
    """PRELU: alpha broadcasts to x."""
    if isinstance(x, QTensor) and isinstance(alpha, QTensor):
        return prelu_integers(x, alpha, needs_out(out, "prelu"))
    data = real_of(x)
    return torch.where(data >= 0, data, data * real_of(alpha))


def _function(
    x: Value,
    function: Callable[[Tensor], Tensor],
    out: QType | None,
    name: str,
    delegated: bool = False,
) -> Value:
    if isinstance(x, QTensor):
        return table_lookup(x, function, needs_out(out, name), delegated=delegated)
    return function(x)


@operator()
def elu(x: Value, *, out: QType | None = None) -> Value:
    """ELU."""
    return _function(x, functional.elu, out, "elu", delegated=True)


@operator()
def gelu(x: Value, *, approximate: bool = False, out: QType | None = None) -> Value:
    """GELU, exact or by tanh."""
    form = "tanh" if approximate else "none"

    def function(data: Tensor) -> Tensor:
        return functional.gelu(data, approximate=form)

    if isinstance(x, QTensor) and x.dtype == torch.int16:
        whole = function if approximate else _gelu_by_erf
        return interpolated(x, whole, needs_out(out, "gelu"))
    return _function(x, function, out, "gelu")


def _gelu_by_erf(x: Tensor) -> Tensor:
    """Rounded as the samples of the 16-bit kernel are."""
    return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))


@operator()
def hard_swish(x: Value, *, out: QType | None = None) -> Value:
    """HARD_SWISH: x * relu6(x + 3) / 6."""
    if isinstance(x, QTensor):
        target = needs_out(out, "hard_swish")
        return by_table(lambda data: hard_swish_integers(data, target), x)
    return functional.hardswish(x)


@operator()
def logistic(x: Value, *, out: QType | None = None) -> Value:
    """LOGISTIC: the sigmoid; int8 results have scale 1/256 and zero point -128."""
    if isinstance(x, QTensor) and x.dtype == torch.int16:
        return logistic_int16(x, needs_out(out, "logistic"))
    return _function(x, torch.sigmoid, out, "logistic", delegated=True)


@operator()
def tanh(x: Value, *, out: QType | None = None) -> Value:
    """TANH; int16 results have scale 1/32768."""
    if isinstance(x, QTensor) and x.dtype == torch.int16:
        return tanh_int16(x, needs_out(out, "tanh"))
    return _function(x, torch.tanh, out, "tanh", delegated=True)


@operator()
def softmax(x: Value, *, beta: float = 1.0, out: QType | None = None) -> Value:
    """SOFTMAX over the last axis; int8 results have scale 1/256 and zero point -128."""
    if isinstance(x, QTensor):
        integers = softmax_int16 if x.dtype == torch.int16 else softmax_integers
        return integers(x, beta, needs_out(out, "softmax"))
    return torch.softmax(x * beta if beta != 1 else x, dim=-1)


@operator()
def log_softmax(x: Value, *, out: QType | None = None) -> Value:
    """LOG_SOFTMAX over the last axis; int8 results have scale 1/16 and zero point 127."""
    if isinstance(x, QTensor):
        return log_softmax_integers(x, needs_out(out, "log_softmax"))
    return torch.log_softmax(x, dim=-1)


@operator()
def l2_normalization(x: Tensor) -> Tensor:
    """L2_NORMALIZATION over the last axis."""
    norm = x.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-6)
    return x / norm


@operator()
def local_response_normalization(
    x: Tensor, *, radius: int, bias: float = 1.0, alpha: float = 1.0, beta: float = 0.5
) -> Tensor:
    """LOCAL_RESPONSE_NORMALIZATION: summed over neighboring channels, not averaged.

    The reference kernel leaves out the last of the 2 * radius + 1 channels.
    """
    after = radius - 1 if kernels.get() == "reference" else radius
    squares = functional.pad(x.square(), (radius, after))
    window = squares.unfold(-1, radius + 1 + after, 1).sum(-1)
    return x * (bias + alpha * window) ** -beta
