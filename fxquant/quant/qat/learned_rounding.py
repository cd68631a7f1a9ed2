"""Rounding whose step is learned: LSQ (Esser 2020) and LSQ+ (Bhalgat 2020).

    y = s * clamp(round(x / s), n, p)            n, p: first and last integer, less z
    dx = dy where x / s is in [n, p], else 0
    ds = dy * (round(x / s) - x / s) inside, dy * n or dy * p outside
    dz = dy * -s outside, 0 inside               z: the zero point, learned by LSQ+ only

Summed over all elements that share s. With y at hand, s * ds = dx * (y - x) + (dy - dx) * y, so
that few passes do it. torch's `_fake_quantize_learnable_*` give the same gradients; they take over
where these steps are slower (`rounding.vectorized`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fxquant.quant.qat.rounding import ends, inside, stepped


class _PerTensor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        low: int,
        high: int,
        by: float,
    ) -> Tensor:
        step = abs(scale.item())
        zero_point = 0 if offset is None else min(max(round(offset.item()), low), high)
        first, last = low - zero_point, high - zero_point
        result = stepped(value, 1.0 / step, step, first, last)
        ctx.save_for_backward(value, result, scale, offset)
        ctx.step, ctx.by, ctx.ends = step, by, ends(step, first, last)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, result, scale, offset = ctx.saved_tensors
        passed = inside(gradient, value, ctx.ends)
        cut = gradient - passed
        slope = _dot(passed, result - value) + _dot(cut, result)
        d_scale = slope * (ctx.by / ctx.step) * torch.sign(scale)
        d_offset = None if offset is None else (cut.sum() * (-ctx.step * ctx.by)).view_as(offset)
        return passed, d_scale.view_as(scale), d_offset, None, None, None


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return torch.dot(first.reshape(-1), second.reshape(-1))


class _PerChannel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: Tensor, low: int, high: int, by: float) -> Tensor:
        step = scale.abs()
        result = stepped(value, step.reciprocal(), step, low, high)
        ctx.save_for_backward(value, result, scale)
        ctx.low, ctx.high, ctx.by = low, high, by
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, result, scale = ctx.saved_tensors
        step = scale.abs()
        kept = (value >= (ctx.low - 0.5) * step) & (value <= (ctx.high + 0.5) * step)
        passed = gradient * kept
        slope = passed * (result - value) + (gradient - passed) * result
        shared = [dim for dim, size in enumerate(scale.shape) if size == 1]
        slope = slope.sum(shared, keepdim=True) if shared else slope
        return passed, slope * (ctx.by / step) * torch.sign(scale), None, None, None


def learned_per_tensor(
    value: Tensor, scale: Tensor, offset: Tensor | None, low: int, high: int, by: float
) -> Tensor:
    """A value rounded with one learned step.

    Args:
        value: float32.
        scale: the step, float32 []; its sign does not matter.
        offset: the learned zero point, float32 []; None for 0.
        low, high: the integers used.
        by: what the gradients of scale and offset are multiplied with.
    """
    result: Tensor = _PerTensor.apply(value, scale, offset, low, high, by)  # type: ignore[no-untyped-call]
    return result


def learned_per_channel(value: Tensor, scale: Tensor, low: int, high: int, by: float) -> Tensor:
    """A value rounded with a learned step for each channel, around 0.

    Args:
        value: float32.
        scale: the steps, of a shape that broadcasts with the value.
        low, high: the integers used.
        by: what the gradients of the steps are multiplied with.
    """
    result: Tensor = _PerChannel.apply(value, scale, low, high, by)  # type: ignore[no-untyped-call]
    return result
