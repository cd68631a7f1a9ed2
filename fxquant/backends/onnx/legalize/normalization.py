"""Rules of norms over layers, groups and instances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import elementwise, matrices, reductions
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Rewriter, Unsupported


def _ones(r: Rewriter, like: Value, shape: Sequence[int]) -> Value:
    return r.constant(torch.ones(tuple(shape), dtype=r.dtype(like)), "ones")


def _zeros(r: Rewriter, like: Value, shape: Sequence[int]) -> Value:
    return r.constant(torch.zeros(tuple(shape), dtype=r.dtype(like)), "zeros")


@legalize(aten.layer_norm.default)
def layer_norm(
    r: Rewriter,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    _: bool = True,
) -> Value:
    """LayerNormalization; before opset 17 by ReduceMean."""
    axis = r.rank(x) - len(shape)
    if r.opset < 17:
        return _affine(r, _standard(r, x, tuple(range(axis, r.rank(x))), eps), weight, bias)
    scale = _ones(r, x, shape) if weight is None else weight
    operands = (x, scale) if bias is None else (x, scale, bias)
    return r.emit(matrices.layer_normalization, *operands, axis=axis, epsilon=eps)


def _standard(r: Rewriter, x: Value, axes: tuple[int, ...], eps: float) -> Value:
    centered = r.emit(elementwise.sub, x, r.emit(reductions.reduce_mean, x, axes))
    squares = r.emit(elementwise.mul, centered, centered)
    variance = r.emit(elementwise.add, r.emit(reductions.reduce_mean, squares, axes), eps)
    return r.emit(elementwise.div, centered, r.emit(elementwise.sqrt, variance))


def _affine(r: Rewriter, x: Value, weight: Value | None, bias: Value | None) -> Value:
    x = x if weight is None else r.emit(elementwise.mul, x, weight)
    return x if bias is None else r.emit(elementwise.add, x, bias)


@legalize(aten.rms_norm.default)
def rms_norm(
    r: Rewriter,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    """The root of the mean of squares divides."""
    axes = tuple(range(r.rank(x) - len(shape), r.rank(x)))
    eps = torch.finfo(r.dtype(x)).eps if eps is None else eps
    squares = r.emit(reductions.reduce_mean, r.emit(elementwise.mul, x, x), axes)
    root = r.emit(elementwise.sqrt, r.emit(elementwise.add, squares, eps))
    return _affine(r, r.emit(elementwise.div, x, root), weight, None)


@legalize(aten.group_norm.default)
def group_norm(
    r: Rewriter,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    _: bool = True,
) -> Value:
    """InstanceNormalization of the groups, then Mul and Add by channel."""
    shape = r.shape(x)
    rows = r.reshape(x, (shape[0], groups, math.prod(shape[1:]) // groups))
    one, zero = _ones(r, x, (groups,)), _zeros(r, x, (groups,))
    normal = r.emit(matrices.instance_normalization, rows, one, zero, epsilon=eps)
    per_channel = (shape[1],) + (1,) * (len(shape) - 2)
    parts = [None if each is None else r.reshape(each, per_channel) for each in (weight, bias)]
    return _affine(r, r.reshape(normal, shape), *parts)


@legalize(aten.instance_norm.default)
def instance_norm(
    r: Rewriter,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    _: bool = True,
) -> Value:
    """InstanceNormalization."""
    if not use_input_stats:
        raise Unsupported("an instance norm with the statistics of training")
    channels = (r.shape(x)[1],)
    scale = _ones(r, x, channels) if weight is None else weight
    offset = _zeros(r, x, channels) if bias is None else bias
    return r.emit(matrices.instance_normalization, x, scale, offset, epsilon=eps)
