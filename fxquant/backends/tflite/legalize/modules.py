"""Rules of the modules that stay modules in the core dialect: BatchNorm in eval, Dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fxquant.backends.tflite import dialect as tfl

from .rewriter import Rewriter
from .values import Value


def batch_norm(r: Rewriter, module: nn.modules.batchnorm._BatchNorm, x: Value) -> Value:
    """MUL and ADD with the statistics of training, one number a channel."""
    assert module.running_mean is not None and module.running_var is not None
    scale = torch.rsqrt(module.running_var.detach() + module.eps)
    if module.weight is not None:
        scale = scale * module.weight.detach()
    offset = -module.running_mean.detach() * scale
    if module.bias is not None:
        offset = offset + module.bias.detach()
    shape = [1, -1] + [1] * (len(r.shape(x)) - 2)
    scaled = r.emit(tfl.mul, x, r.constant(scale.reshape(shape), "scale"))
    return r.emit(tfl.add, scaled, r.constant(offset.reshape(shape), "offset"))


def identity(r: Rewriter, module: nn.Module, x: Value) -> Value:
    """Nothing: what the module does in training only."""
    return x


PASSING: tuple[type[nn.Module], ...] = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.Identity,
)
"""Modules that change nothing in eval."""

MODULE_RULES: dict[type[nn.Module], Callable[..., Any]] = {
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    **dict.fromkeys(PASSING, identity),
}
