"""Normalizations written out by hand become layer_norm and rms_norm.

    (x - x.mean(-1, keepdim=True)) / sqrt(var + eps) * w + b    ->  layer_norm(x, [n], w, b, eps)
    x * rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w        ->  rms_norm(x, [n], w, eps)

The variance may be `var(correction=0)`, the mean of squares, or `var_mean`; weight and bias may be
missing. Only over the last dimension, which is the one that models write out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fxquant.passes.fusion.match import Match
from fxquant.passes.fusion.registry import register_fusion
from fxquant.passes.fusion.wildcards import any_float, either, optional

SPELLED = either("squares", "var", "var_mean")
SHAPES = {"x": (2, 5, 8), "weight": (8,), "bias": (8,)}


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def as_layer_norm(
    x: Tensor,
    weight: Tensor | None = optional,
    bias: Tensor | None = optional,
    eps: float = any_float,
    variance: str = "",
) -> Tensor:
    """layer_norm over the last dimension."""
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def _fits(match: Match) -> bool | str:
    """Weights of the size of the last dimension, and an eps that layer_norm takes."""
    last = match.shape("x")[-1]
    for name in ("weight", "bias"):
        if match.values.get(name) is not None and match.shape(name) != (last,):
            return f"{name} is {list(match.shape(name))}, not [{last}]"
    return match["eps"] >= 0 or "eps is negative"


@register_fusion(
    "layer-norm", needs=("sqrt", "rsqrt", "pow"), replace=as_layer_norm, check=_fits, shapes=SHAPES
)
def layer_norm(
    x: Tensor,
    weight: Tensor | None = optional,
    bias: Tensor | None = optional,
    eps: float = any_float,
    variance: Any = SPELLED,
) -> Tensor:
    """The variance as the mean of squares, by `var`, or by `var_mean`."""
    mean = x.mean(-1, keepdim=True)
    if variance == "squares":
        var = ((x - mean) ** 2).mean(-1, keepdim=True)
    elif variance == "var":
        var = x.var(-1, correction=0, keepdim=True)
    else:
        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    return _affine((x - mean) / torch.sqrt(var + eps), weight, bias)


def as_rms_norm(x: Tensor, weight: Tensor | None = optional, eps: float = any_float) -> Tensor:
    """rms_norm over the last dimension."""
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


@register_fusion(
    "rms-norm", needs=("sqrt", "rsqrt", "pow"), replace=as_rms_norm, check=_fits, shapes=SHAPES
)
def rms_norm(x: Tensor, weight: Tensor | None = optional, eps: float = any_float) -> Tensor:
    """x over the root of the mean of its squares."""
    return _affine(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps), weight, None)
