"""Rules of the modules that stay modules in the core dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import matrices as ops
from fxquant.quant.stubs import DeQuantStub, QuantStub

from .rewriter import Rewriter, Unsupported


def batch_norm(r: Rewriter, module: nn.modules.batchnorm._BatchNorm, x: Value) -> Value:
    """BatchNormalization with the statistics of training."""
    if module.running_mean is None or module.running_var is None:
        raise Unsupported("a batch norm without statistics of training")
    mean, variance = module.running_mean, module.running_var
    weight = torch.ones_like(mean) if not module.affine else module.weight
    bias = torch.zeros_like(mean) if not module.affine else module.bias
    names = ("weight", "bias", "mean", "variance")
    tensors = zip(names, (weight, bias, mean, variance), strict=True)
    constants = [r.constant(tensor.detach(), name) for name, tensor in tensors]
    return r.emit(ops.batch_normalization, x, *constants, epsilon=module.eps)


PASSING: tuple[type[nn.Module], ...] = (
    QuantStub,
    DeQuantStub,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.Identity,
)
"""Modules that change nothing in eval."""

MODULE_RULES: dict[type[nn.Module], Callable[..., Any]] = dict.fromkeys(
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm
)
