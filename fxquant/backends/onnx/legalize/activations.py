"""Rules of activations."""

from __future__ import annotations

import math

import torch

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import elementwise as ops
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Number, Rewriter


@legalize(aten.relu.default)
def relu(r: Rewriter, x: Value) -> Value:
    """Relu."""
    return r.emit(ops.relu, x)


@legalize(aten.relu6.default)
def relu6(r: Rewriter, x: Value) -> Value:
    """Clip to 6."""
    return r.emit(ops.clip, x, *r.operands(0, 6))


@legalize(aten.hardtanh.default)
def hardtanh(r: Rewriter, x: Value, low: Number = -1, high: Number = 1) -> Value:
    """Clip."""
    return r.emit(ops.clip, x, *r.operands(low, high))


@legalize(aten.leaky_relu.default)
def leaky_relu(r: Rewriter, x: Value, slope: float = 0.01) -> Value:
    """LeakyRelu, its slope an attribute."""
    return r.emit(ops.leaky_relu, x, alpha=float(slope))


@legalize(aten.prelu.default)
def prelu(r: Rewriter, x: Value, weight: Value) -> Value:
    """PRelu, the slopes along the channels."""
    rank = r.rank(x)
    shape = (r.shape(weight)[0],) + (1,) * (rank - 2) if rank > 1 else r.shape(weight)
    return r.emit(ops.prelu, x, r.reshape(weight, shape))


@legalize(aten.elu.default)
def elu(
    r: Rewriter, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> Value:
    """Elu, scaled before and after."""
    scaled = x if input_scale == 1 else r.emit(ops.mul, x, float(input_scale))
    if input_scale != 1:  # the negative side alone is stretched
        negative = r.emit(ops.elu, scaled, alpha=float(alpha))
        found = r.emit(ops.where, r.emit(ops.greater, x, 0.0), x, negative)
    else:
        found = r.emit(ops.elu, x, alpha=float(alpha))
    return found if scale == 1 else r.emit(ops.mul, found, float(scale))


@legalize(aten.selu.default)
def selu(r: Rewriter, x: Value) -> Value:
    """Selu."""
    return r.emit(ops.selu, x)


@legalize(aten.celu.default)
def celu(r: Rewriter, x: Value, alpha: float = 1.0) -> Value:
    """Celu."""
    return r.emit(ops.celu, x, alpha=float(alpha))


@legalize(aten.sigmoid.default)
def sigmoid(r: Rewriter, x: Value) -> Value:
    """Sigmoid."""
    return r.emit(ops.sigmoid, *r.operands(x))


@legalize(aten.tanh.default)
def tanh(r: Rewriter, x: Value) -> Value:
    """Tanh."""
    return r.emit(ops.tanh, *r.operands(x))


@legalize(aten.silu.default)
def silu(r: Rewriter, x: Value) -> Value:
    """Sigmoid and Mul."""
    return r.emit(ops.mul, x, r.emit(ops.sigmoid, x))


@legalize(aten.mish.default)
def mish(r: Rewriter, x: Value) -> Value:
    """Softplus, Tanh and Mul."""
    return r.emit(ops.mul, x, r.emit(ops.tanh, r.emit(ops.softplus, x)))


@legalize(aten.softplus.default)
def softplus(r: Rewriter, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """Softplus, scaled; beyond the threshold the two agree in float32."""
    if beta == 1:
        return r.emit(ops.softplus, x)
    scaled = r.emit(ops.softplus, r.emit(ops.mul, x, float(beta)))
    return r.emit(ops.div, scaled, float(beta))


@legalize(aten.log_sigmoid.default)
def log_sigmoid(r: Rewriter, x: Value) -> Value:
    """Minus Softplus of minus x."""
    return r.emit(ops.neg, r.emit(ops.softplus, r.emit(ops.neg, x)))


@legalize(aten.hardswish.default)
def hardswish(r: Rewriter, x: Value) -> Value:
    """HardSwish; before opset 14 HardSigmoid and Mul."""
    if r.opset >= 14:
        return r.emit(ops.hard_swish, x)
    return r.emit(ops.mul, x, hardsigmoid(r, x))


@legalize(aten.hardsigmoid.default)
def hardsigmoid(r: Rewriter, x: Value) -> Value:
    """HardSigmoid of slope 1/6."""
    return r.emit(ops.hard_sigmoid, x, alpha=1 / 6)


@legalize(aten.gelu.default)
def gelu(r: Rewriter, x: Value, *, approximate: str = "none") -> Value:
    """Gelu; before opset 20 with Erf or Tanh."""
    if r.opset >= 20:
        return r.emit(ops.gelu, x, approximate=approximate)
    if approximate == "tanh":
        cube = r.emit(ops.mul, r.emit(ops.mul, x, x), x)
        inner = r.emit(ops.add, x, r.emit(ops.mul, cube, 0.044715))
        bent = r.emit(ops.tanh, r.emit(ops.mul, inner, math.sqrt(2 / math.pi)))
    else:
        bent = r.emit(ops.erf, r.emit(ops.div, x, math.sqrt(2)))
    return r.emit(ops.mul, r.emit(ops.mul, x, r.emit(ops.add, bent, 1.0)), 0.5)


@legalize(aten.softmax.int, aten._softmax.default)
def softmax(r: Rewriter, x: Value, dim: int, dtype: torch.dtype | bool | None = None) -> Value:
    """Softmax."""
    return r.emit(ops.softmax, *r.operands(x), axis=dim)


@legalize(aten.log_softmax.int, aten._log_softmax.default)
def log_softmax(r: Rewriter, x: Value, dim: int, dtype: torch.dtype | bool | None = None) -> Value:
    """LogSoftmax."""
    return r.emit(ops.log_softmax, *r.operands(x), axis=dim)
