"""Comparisons, casts, and tensors made from nothing.

ge(x, 0.5)        ->   greater_equal(x, @n0_5)
_to_copy(x, f32)  ->   cast {out_data_type="float32"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value

COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}


def _comparison(function: str) -> Any:
    def rule(r: Rewriter, x: Value, y: Value | complex) -> Value:
        return compare(r, getattr(tfl, function), x, y)

    rule.__name__ = rule.__qualname__ = function
    rule.__doc__ = f"{function.upper()}, both operands cast to their common dtype."
    return rule


def compare(r: Rewriter, function: Any, x: Value, y: Value | complex) -> Value:
    """A comparison in the dtype that torch compares in."""
    first, second = (_sample(r, value) for value in (x, y))
    dtype = torch.result_type(first, second)
    if dtype == torch.bool and function.__name__ not in ("equal", "not_equal"):
        dtype = torch.int32
    return r.emit(function, *r.operands(x, y, dtype=dtype))


def _sample(r: Rewriter, value: Value | complex) -> Any:
    if isinstance(value, torch.fx.Node | Constant):
        kind = r.type(value)
        return torch.empty(
            [1] * len(kind.shape), dtype=torch.float32 if kind.quantization else kind.dtype
        )
    return value


for _name, _function in COMPARISONS.items():
    _packet = getattr(aten, _name)
    legalize(_packet.Tensor, _packet.Scalar)(_comparison(_function))


@legalize(aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, moves=True)
def to(r: Rewriter, x: Value, *_: object, **__: object) -> Value:
    """CAST."""
    if r.is_quantized(x) and r.result_dtype.is_floating_point:
        return x
    return r.cast(r.float(x), r.result_dtype)


@legalize(aten.type_as.default)
def type_as(r: Rewriter, x: Value, other: Value) -> Value:
    """CAST."""
    return r.cast(x, r.result_dtype)


def filled(r: Rewriter, value: complex) -> Constant:
    """A constant of the result's shape and dtype."""
    data = torch.full((), value, dtype=r.result_dtype).expand(r.result_shape)
    return Constant(f"{r.origin.name if r.origin else 'constants'}.filled", data)


@legalize(aten.full.default)
def full(r: Rewriter, size: Sequence[int], value: complex, **_: object) -> Value:
    """A constant."""
    return filled(r, value)


@legalize(aten.full_like.default)
def full_like(r: Rewriter, x: Value, value: complex, **_: object) -> Value:
    """A constant."""
    return filled(r, value)


@legalize(aten.new_full.default)
def new_full(r: Rewriter, x: Value, size: Sequence[int], value: complex, **_: object) -> Value:
    """A constant."""
    return filled(r, value)


@legalize(aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)
def zeros(r: Rewriter, *_: object, **__: object) -> Value:
    """A constant."""
    return filled(r, 0)


@legalize(aten.ones.default, aten.ones_like.default, aten.new_ones.default)
def ones(r: Rewriter, *_: object, **__: object) -> Value:
    """A constant."""
    return filled(r, 1)


@legalize(aten.scalar_tensor.default)
def scalar_tensor(r: Rewriter, value: complex, **_: object) -> Value:
    """A constant."""
    return filled(r, value)


@legalize(aten.arange.default, aten.arange.start, aten.arange.start_step)
def arange(r: Rewriter, *limits: complex, **_: object) -> Value:
    """A constant."""
    if any(isinstance(limit, torch.fx.Node | Constant) for limit in limits):
        raise Unsupported("a range whose limits depend on the data")
    data = torch.arange(*limits, dtype=r.result_dtype)
    return Constant(f"{r.origin.name if r.origin else 'constants'}.range", data)
