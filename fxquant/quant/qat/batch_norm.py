"""What stands behind a layer while it trains, and goes into its weights when it is frozen.

    %conv = conv2d(%x, %w_fq)                      %conv = conv2d(%x, %w_fq, @b)
    %bn = TrainedBatchNorm @bn(%conv)      ->

A device has no batch norm: it computes with w * s, s = gamma / sqrt(running_var + eps), on a grid.
Training must round *those* weights, though the forward normalizes with the statistics of the batch
(Jacob 2018, Krishnamoorthi 2018). The published form rounds w * s, convolves, and divides the
result by s before the batch norm. A convolution is linear, so the weights can be divided instead:

    y = BN(conv(x, round(w * s) / s) + b)

and with one scale for each output channel, its range symmetric and taken from the weights, even
that falls out: round(w * s) / s = round(w), because the scale of channel c is proportional to s[c].
Then nothing but `round(w)` is added to float training. `WeightScale` is for all other grids.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class TrainedBatchNorm(_BatchNorm):
    """Batch norm for values of any rank whose statistics can be frozen while the rest trains.

    `frozen` outlives any number of `train()` and `eval()`: frozen, running statistics normalize and
    are not updated; gamma and beta go on learning.
    """

    frozen = False

    @staticmethod
    def of(module: _BatchNorm) -> TrainedBatchNorm:
        """The same batch norm, its parameters and buffers shared."""
        made = TrainedBatchNorm.__new__(TrainedBatchNorm)
        made.__dict__.update(module.__dict__)
        for table in ("_parameters", "_buffers"):
            made.__dict__[table] = dict(module.__dict__[table])
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """The normalized value, of the same shape."""
        if not self.frozen:
            return super().forward(input)
        statistics = (self.running_mean, self.running_var)
        return F.batch_norm(input, *statistics, self.weight, self.bias, False, 0.0, self.eps)

    def get_extra_state(self) -> Tensor:
        """Whether the statistics are frozen."""
        return torch.tensor([self.frozen], dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore it."""
        self.frozen = bool(state[0])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        missing, extra = rest[2], f"{prefix}_extra_state"
        if extra in missing:  # the float model has none
            missing.remove(extra)

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        text: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return text + (", frozen" if self.frozen else "")


class Line(nn.Module):
    """factor * x + offset, two numbers; a layer takes it in when it is frozen."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, value: Tensor) -> Tensor:
        """The value on the line."""
        return value * self.factor + self.offset

    def ir_label(self) -> str:
        """How it prints in a graph."""
        return f"line<{self.factor:.6g},{self.offset:.6g}>"


class WeightScale(nn.Module):
    """gamma / sqrt(running_var + eps) in a shape that multiplies a weight; no gradient.

    Args:
        eps: that of the batch norm.
        transposed: whether weights are [in, out / groups, ...] rather than [out, in / groups, ...].
        groups: of the layer.
    """

    def __init__(self, eps: float, transposed: bool, groups: int = 1) -> None:
        super().__init__()
        self.eps, self.transposed, self.groups = eps, transposed, groups

    @torch.no_grad()
    def forward(self, weight: Tensor, variance: Tensor, gamma: Tensor | None = None) -> Tensor:
        """The factors; 1 where gamma is 0, as the channel has no weights then."""
        factors = torch.rsqrt(variance + self.eps)
        if gamma is not None:
            factors = torch.where(gamma == 0, 1.0, factors * gamma)
        ones = [1] * (weight.dim() - 2)
        if not self.transposed:
            return factors.view(-1, 1, *ones)
        blocks = factors.view(self.groups, 1, -1)
        blocks = blocks.expand(-1, weight.shape[0] // self.groups, -1)
        return blocks.reshape(weight.shape[0], -1, *ones)

    def ir_label(self) -> str:
        """How it prints in a graph."""
        return "weight_scale"
