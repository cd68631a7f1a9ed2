"""Norms on fake tensors, without the arithmetic.

Their result has the shape of their input; torch finds that out by decomposing them into a dozen
fake operations each, which is three quarters of the time of a trace. Anything unusual (another
dtype, a wrong number of channels) goes the long way, where torch raises its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor


def _batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> bool:
    parts = (running_mean, running_var, weight, bias)
    return not training and input.dim() > 1 and _fits(input, parts, (input.shape[1],))


def _layer_norm(
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> bool:
    shape = tuple(normalized_shape)
    tail = tuple(input.shape[input.dim() - len(shape) :])
    return shape == tail and _fits(input, (weight, bias), shape)


def _fits(
    input: torch.Tensor, parts: tuple[torch.Tensor | None, ...], shape: tuple[int, ...]
) -> bool:
    return all(
        part is None or (tuple(part.shape) == shape and part.dtype == input.dtype) for part in parts
    )


KEEPS_SHAPE: dict[Any, Callable[..., bool]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
}


def shape_kept(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """A fake result for a norm of a fake tensor, if it is one of the plain cases."""
    input = args[0] if args else None
    if not isinstance(input, FakeTensor) or not KEEPS_SHAPE[func](*args, **kwargs):
        return None
    return input.clone(memory_format=torch.preserve_format)
