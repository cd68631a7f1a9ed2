"""Operators on one element at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import operator

Number = float | int | bool
Operand = Tensor | Number


@operator("Abs")
def abs(x: Tensor) -> Tensor:
    return torch.abs(x)


@operator("Neg")
def neg(x: Tensor) -> Tensor:
    return torch.neg(x)


@operator("Exp")
def exp(x: Tensor) -> Tensor:
    return torch.exp(x)


@operator("Log")
def log(x: Tensor) -> Tensor:
    return torch.log(x)


@operator("Sqrt")
def sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x)


@operator("Reciprocal")
def reciprocal(x: Tensor) -> Tensor:
    return torch.reciprocal(x)


@operator("Floor")
def floor(x: Tensor) -> Tensor:
    return torch.floor(x)


@operator("Ceil")
def ceil(x: Tensor) -> Tensor:
    return torch.ceil(x)


@operator("Round")
def round(x: Tensor) -> Tensor:
    return torch.round(x)


@operator("Sign")
def sign(x: Tensor) -> Tensor:
    return torch.sign(x)


@operator("Sin")
def sin(x: Tensor) -> Tensor:
    return torch.sin(x)


@operator("Cos")
def cos(x: Tensor) -> Tensor:
    return torch.cos(x)


@operator("Tan")
def tan(x: Tensor) -> Tensor:
    return torch.tan(x)


@operator("Asin")
def asin(x: Tensor) -> Tensor:
    return torch.asin(x)


@operator("Acos")
def acos(x: Tensor) -> Tensor:
    return torch.acos(x)


@operator("Atan")
def atan(x: Tensor) -> Tensor:
    return torch.atan(x)


@operator("Sinh")
def sinh(x: Tensor) -> Tensor:
    return torch.sinh(x)


@operator("Cosh")
def cosh(x: Tensor) -> Tensor:
    return torch.cosh(x)


@operator("Asinh")
def asinh(x: Tensor) -> Tensor:
    return torch.asinh(x)


@operator("Acosh")
def acosh(x: Tensor) -> Tensor:
    return torch.acosh(x)


@operator("Atanh")
def atanh(x: Tensor) -> Tensor:
    return torch.atanh(x)


@operator("Erf")
def erf(x: Tensor) -> Tensor:
    return torch.erf(x)


@operator("IsNaN")
def isnan(x: Tensor) -> Tensor:
    return torch.isnan(x)


@operator("IsInf")
def isinf(x: Tensor) -> Tensor:
    return torch.isinf(x)


@operator("Not")
def logical_not(x: Tensor) -> Tensor:
    return torch.logical_not(x)


@operator("Add")
def add(a: Operand, b: Operand) -> Tensor:
    return torch.add(a, b)


@operator("Sub")
def sub(a: Operand, b: Operand) -> Tensor:
    return torch.sub(a, b) if isinstance(a, Tensor) else torch.rsub(b, a)  # type: ignore[arg-type]


@operator("Mul")
def mul(a: Operand, b: Operand) -> Tensor:
    return torch.mul(a, b)


@operator("Div")
def div(a: Operand, b: Operand) -> Tensor:
    """Integers are divided toward zero."""
    first = a if isinstance(a, Tensor) else torch.full_like(b, a)  # type: ignore[arg-type]
    if first.dtype.is_floating_point:
        return torch.div(first, b)
    return torch.div(first, b, rounding_mode="trunc")


@operator("Mod")
def mod(a: Operand, b: Operand, *, fmod: int = 0) -> Tensor:
    """The sign of the divisor, with fmod that of the dividend."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)  # type: ignore[arg-type]


@operator("Pow")
def pow(a: Operand, b: Operand) -> Tensor:
    return torch.pow(a, b)  # type: ignore[arg-type]


@operator("Max", variadic=True)
def maximum(values: list[Tensor]) -> Tensor:
    found = values[0]
    for value in values[1:]:
        found = torch.maximum(found, value)
    return found


@operator("Min", variadic=True)
def minimum(values: list[Tensor]) -> Tensor:
    found = values[0]
    for value in values[1:]:
        found = torch.minimum(found, value)
    return found


@operator("Clip")
def clip(x: Tensor, low: Number | None, high: Number | None) -> Tensor:
    return torch.clamp(x, low, high)


@operator("Equal")
def equal(a: Operand, b: Operand) -> Tensor:
    return torch.eq(a, b)  # type: ignore[arg-type]


@operator("Less")
def less(a: Operand, b: Operand) -> Tensor:
    return torch.lt(a, b)  # type: ignore[arg-type]


@operator("LessOrEqual")
def less_or_equal(a: Operand, b: Operand) -> Tensor:
    return torch.le(a, b)  # type: ignore[arg-type]


@operator("Greater")
def greater(a: Operand, b: Operand) -> Tensor:
    return torch.gt(a, b)  # type: ignore[arg-type]


@operator("GreaterOrEqual")
def greater_or_equal(a: Operand, b: Operand) -> Tensor:
    return torch.ge(a, b)  # type: ignore[arg-type]


@operator("And")
def logical_and(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_and(a, b)


@operator("Or")
def logical_or(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_or(a, b)


@operator("Xor")
def logical_xor(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_xor(a, b)


@operator("Where")
def where(condition: Tensor, a: Operand, b: Operand) -> Tensor:
    return torch.where(condition, a, b)


@operator("Cast", hidden=("to",))
def cast(x: Tensor, *, to: str) -> Tensor:
    """To a dtype of torch's names."""
    dtype: torch.dtype = getattr(torch, to)
    return x.to(dtype)


@operator("Relu")
def relu(x: Tensor) -> Tensor:
    return F.relu(x)


@operator("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@operator("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@operator("Selu")
def selu(x: Tensor) -> Tensor:
    return F.selu(x)


@operator("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@operator("Sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@operator("Tanh")
def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@operator("Softplus")
def softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(x * alpha + beta, 0, 1)


@operator("HardSwish", since=14)
def hard_swish(x: Tensor) -> Tensor:
    return F.hardswish(x)


@operator("Gelu", since=20)
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@operator("Softmax")
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@operator("LogSoftmax")
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)
