"""The primitives that PyTorch's decompositions end in, each by the rule of its ATen twin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._ops import OpOverload

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .registry import RULES, legalize
from .rewriter import Rewriter
from .values import Value

prims = torch.ops.prims

TWINS = {
    "add": aten.add.Tensor,
    "sub": aten.sub.Tensor,
    "mul": aten.mul.Tensor,
    "div": aten.div.Tensor,
    "maximum": aten.maximum.default,
    "minimum": aten.minimum.default,
    "pow": aten.pow.Tensor_Tensor,
    "fmod": aten.fmod.Tensor,
    "remainder": aten.remainder.Tensor,
    "atan2": aten.atan2.default,
    "eq": aten.eq.Tensor,
    "ne": aten.ne.Tensor,
    "lt": aten.lt.Tensor,
    "le": aten.le.Tensor,
    "gt": aten.gt.Tensor,
    "ge": aten.ge.Tensor,
    "where": aten.where.self,
    "bitwise_and": aten.bitwise_and.Tensor,
    "bitwise_or": aten.bitwise_or.Tensor,
    "bitwise_xor": aten.bitwise_xor.Tensor,
    "bitwise_not": aten.bitwise_not.default,
    "signbit": aten.signbit.default,
    "fmax": aten.fmax.default,
    "fmin": aten.fmin.default,
    "hypot": aten.hypot.default,
    "cat": aten.cat.default,
    "transpose": aten.permute.default,
    "reshape": aten.view.default,
    "squeeze": aten.squeeze.dims,
    "rev": aten.flip.default,
    "convert_element_type": aten._to_copy.default,
    "clone": aten.clone.default,
    "view_of": aten.alias.default,
    **{
        name: getattr(aten, name).default
        for name in [
            "abs",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atanh",
            "ceil",
            "cos",
            "cosh",
            "erf",
            "erfc",
            "exp",
            "exp2",
            "expm1",
            "floor",
            "isfinite",
            "log",
            "log10",
            "log1p",
            "log2",
            "neg",
            "reciprocal",
            "round",
            "rsqrt",
            "sign",
            "sin",
            "sinh",
            "sqrt",
            "tan",
            "tanh",
            "trunc",
        ]
    },
}

for _name, _twin in TWINS.items():
    _primitive = getattr(getattr(prims, _name, None), "default", None)
    if isinstance(_primitive, OpOverload) and _twin in RULES:
        RULES[_primitive] = RULES[_twin]


def _reduced(r: Rewriter, function: object, x: Value, dims: Sequence[int] | None) -> Value:
    axes = tuple(range(len(r.shape(x)))) if dims is None else tuple(dims)
    return r.emit(function, x, axis=axes, keep_dims=False)  # type: ignore[arg-type]


@legalize(prims.sum.default)
def sum(r: Rewriter, x: Value, dims: Sequence[int] | None, **_: object) -> Value:
    """SUM."""
    return _reduced(r, tfl.sum, x, dims)


@legalize(prims.prod.default)
def prod(r: Rewriter, x: Value, dims: Sequence[int] | None, **_: object) -> Value:
    """REDUCE_PROD."""
    return _reduced(r, tfl.reduce_prod, x, dims)


@legalize(prims.amax.default)
def amax(r: Rewriter, x: Value, dims: Sequence[int] | None, **_: object) -> Value:
    """REDUCE_MAX."""
    return _reduced(r, tfl.reduce_max, x, dims)


@legalize(prims.amin.default)
def amin(r: Rewriter, x: Value, dims: Sequence[int] | None, **_: object) -> Value:
    """REDUCE_MIN."""
    return _reduced(r, tfl.reduce_min, x, dims)


@legalize(prims.broadcast_in_dim.default)
def broadcast_in_dim(r: Rewriter, x: Value, shape: Sequence[int], places: Sequence[int]) -> Value:
    """RESHAPE with dimensions of one, then BROADCAST_TO."""
    wide = [1] * len(shape)
    for size, place in zip(r.shape(x), places, strict=True):
        wide[place] = size
    return r.broadcast(r.reshape(x, wide), shape)
