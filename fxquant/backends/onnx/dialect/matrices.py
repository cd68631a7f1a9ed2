"""Products of matrices, and norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import operator


@operator("MatMul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@operator("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """alpha a b + beta c, of two dimensions."""
    product = (a.t() if transA else a) @ (b.t() if transB else b)
    product = product if alpha == 1.0 else product * alpha
    if c is None:
        return product
    return product + (c if beta == 1.0 else c * beta)


@operator("Einsum", variadic=True)
def einsum(values: list[Tensor], *, equation: str) -> Tensor:
    found: Tensor = torch.einsum(equation, values)
    return found


@operator("LayerNormalization", since=17)
def layer_normalization(
    x: Tensor, scale: Tensor, b: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5
) -> Tensor:
    """Over the dimensions from `axis` on."""
    return F.layer_norm(x, x.shape[axis:], scale, b, epsilon)


@operator("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    # F.instance_norm refuses an image of one element, the runtime does not.
    axes = tuple(range(2, x.dim()))
    shape = (1, -1) + (1,) * len(axes)
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    normal = (x - mean) * torch.rsqrt(variance + epsilon)
    return normal * scale.reshape(shape) + b.reshape(shape)


@operator("BatchNormalization", since=15)
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
) -> Tensor:
    """With the statistics of training."""
    return F.batch_norm(x, mean, variance, scale, b, False, 0.0, epsilon)
