"""Normalizations in float: MEAN, SQUARED_DIFFERENCE, RSQRT, as one delegated partition.

layer_norm(x) over the last axis   ->   d = x - mean(x); d * rsqrt(mean(d * d) + eps) * w + b
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value


def normalized(r: Rewriter, x: Value, axes: tuple[int, ...], eps: float) -> Value:
    """Mean 0 and variance 1 over some axes."""
    center = r.emit(tfl.sub, x, r.emit(tfl.mean, x, axis=axes, keep_dims=True))
    variance = r.emit(tfl.mean, r.emit(tfl.mul, center, center), axis=axes, keep_dims=True)
    inverse = r.emit(tfl.rsqrt, r.emit(tfl.add, variance, r.scalar(eps)))
    return r.emit(tfl.mul, center, inverse)


def scaled(r: Rewriter, x: Value, weight: Value | None, bias: Value | None) -> Value:
    """Weight and bias, where there are any."""
    if weight is not None:
        x = r.emit(tfl.mul, x, weight)
    return x if bias is None else r.emit(tfl.add, x, bias)


def by_channel(r: Rewriter, value: Value | None, x: Value) -> Value | None:
    """One number a channel, shaped to broadcast over channels-first data."""
    return (
        None
        if value is None
        else r.reshape(value, (1, r.elements(value), *(1,) * (len(r.shape(x)) - 2)))
    )


@legalize(aten.layer_norm.default)
def layer_norm(
    r: Rewriter,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Value:
    """Over the last axes."""
    rank = len(r.shape(x))
    axes = tuple(range(rank - len(shape), rank))
    return scaled(r, normalized(r, x, axes, eps), weight, bias)


@legalize(aten.native_layer_norm.default)
def native_layer_norm(
    r: Rewriter,
    x: Value,
    shape: Sequence[int],
    weight: Value | None,
    bias: Value | None,
    eps: float,
) -> tuple[Value, None, None]:
    """As `layer_norm`; the statistics are for training."""
    return layer_norm(r, x, shape, weight, bias, eps), None, None


@legalize(aten.rms_norm.default)
def rms_norm(
    r: Rewriter,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    """Divided by the root of the mean square."""
    rank = len(r.shape(x))
    axes = tuple(range(rank - len(shape), rank))
    square = r.emit(tfl.mean, r.emit(tfl.mul, x, x), axis=axes, keep_dims=True)
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    inverse = r.emit(tfl.rsqrt, r.emit(tfl.add, square, r.scalar(eps)))
    return scaled(r, r.emit(tfl.mul, x, inverse), weight, None)


@legalize(aten.group_norm.default)
def group_norm(
    r: Rewriter,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Value:
    """Each group of channels a row of its own; one channel a group needs no reshape."""
    shape = r.shape(x)
    spatial = tuple(range(2, len(shape)))
    if groups == 1 and spatial:
        result = normalized(r, x, (1, *spatial), eps)
    elif groups == shape[1] and spatial:
        result = normalized(r, x, spatial, eps)
    else:
        rows = r.reshape(x, (shape[0], groups, r.elements(x) // (shape[0] * groups)))
        result = r.reshape(normalized(r, rows, (2,), eps), shape)
    return scaled(r, result, by_channel(r, weight, x), by_channel(r, bias, x))


@legalize(aten.instance_norm.default)
def instance_norm(
    r: Rewriter,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    own_statistics: bool,
    momentum: float,
    eps: float,
    cudnn: bool = True,
) -> Value:
    """Over the spatial axes, or with the statistics of training."""
    if not own_statistics:
        return batch_norm(r, x, weight, bias, mean, var, False, momentum, eps)
    result = normalized(r, x, tuple(range(2, len(r.shape(x)))), eps)
    return scaled(r, result, by_channel(r, weight, x), by_channel(r, bias, x))


@legalize(aten.batch_norm.default)
def batch_norm(
    r: Rewriter,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool = True,
) -> Value:
    """MUL and ADD with constant statistics."""
    if training or not isinstance(mean, Constant) or not isinstance(var, Constant):
        raise Unsupported("batch norm in training mode: call model.eval() first")
    scale = torch.rsqrt(var.data + eps)
    if isinstance(weight, Constant):
        scale = scale * weight.data
    offset = -mean.data * scale
    if isinstance(bias, Constant):
        offset = offset + bias.data
    factor = by_channel(r, r.constant(scale.detach(), "scale"), x)
    shift = by_channel(r, r.constant(offset.detach(), "offset"), x)
    return scaled(r, x, factor, shift)


@legalize(aten._native_batch_norm_legit_no_training.default)
def batch_norm_no_training(
    r: Rewriter,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    momentum: float,
    eps: float,
) -> tuple[Value, None, None]:
    """As `batch_norm`."""
    return batch_norm(r, x, weight, bias, mean, var, False, momentum, eps), None, None
