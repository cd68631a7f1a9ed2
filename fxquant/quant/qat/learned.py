"""FakeQuantize whose step is a parameter: LSQ, and LSQ+ with a learned zero point.

| | begins with | learned |
|---|---|---|
| weight | the step of least squared error | step |
| activation, `lsq` | the range of the first batch, or of `calibrate` | step |
| activation, `lsq+` | the same | step and zero point |

The parameters are in `model.parameters()`, so the loop's optimizer trains them; their gradients are
scaled by 1 / sqrt(n * q) (Esser 2020), n the elements of a sample that share a step, q the largest
integer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fxquant.quant.arithmetic import Parameters, along
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from fxquant.quant.qat.learned_rounding import learned_per_channel, learned_per_tensor
from fxquant.quant.qat.rounding import stepped, vectorized
from fxquant.quant.spec import QuantSpec

FRACTIONS = tuple(0.25 + 0.05 * number for number in range(16))
"""Of the largest weight, at which the grid is tried to end."""


class LearnedFakeQuantize(TrainedFakeQuantize):
    """Rounds a value in training with a step that is learned.

    Args:
        spec: dtype and range.
        channels: number of channels along `spec.axis`.
        constant: the value is a weight or another constant.
        offset: learn the zero point too, where the spec leaves it free.
    """

    offset: nn.Parameter | None

    def __init__(
        self, spec: QuantSpec, channels: int = 1, *, constant: bool = False, offset: bool = False
    ) -> None:
        super().__init__(spec, channels, constant=constant)
        scale = self._buffers.pop("scale")
        assert scale is not None
        self.register_parameter("scale", nn.Parameter(scale))
        free = offset and not (spec.symmetric or constant)
        self.register_parameter("offset", nn.Parameter(torch.zeros(())) if free else None)

    def follow(self, value: Tensor) -> None:
        """Find the step to begin with; later the optimizer moves it."""
        if self._has_begun():
            return
        if self.constant:
            self._set(self.of_least_error(value))
            if self.training and self.quantizing:
                self._start()
        elif self.training and self.tracking:
            self.observer.observe(value)
            if self.observer.seen:
                self.take_parameters()

    def is_known(self) -> bool:
        """Whether there is a grid to round to; weights always have one."""
        return self.constant or self._has_begun()

    def _has_begun(self) -> bool:
        # A copy that an EMA made before the first batch has the buffers, not the flag.
        self.assigned = self.assigned or self.observer.seen
        return self.assigned

    def _start(self) -> None:
        self.observer.batches.fill_(1)
        self.assigned = True

    def rounded(self, value: Tensor) -> Tensor:
        """The value on its grid, gradients for step and zero point included."""
        spec, by = self.spec, self._gradient_scale(value)
        if not vectorized(value):
            return self._rounded_by_torch(value, by)
        if spec.axis is not None and spec.symmetric and spec.low < 0:
            scale = along(self.scale, value.dim(), spec.axis)
            return learned_per_channel(value, scale, spec.low, spec.high, by)
        if spec.axis is not None:
            return self._rounded_by_torch(value, by)
        offset = self.zero_point.float() if self.offset is None else self.offset
        return learned_per_tensor(value, self.scale, offset, spec.low, spec.high, by)

    def _rounded_by_torch(self, value: Tensor, by: float) -> Tensor:
        spec, scale = self.spec, self.scale.abs().view(-1)
        zero_point = self.zero_point.float() if self.offset is None else self.offset
        ends = (spec.low, spec.high, by)
        if spec.axis is None:
            return torch._fake_quantize_learnable_per_tensor_affine(
                value, scale, zero_point.view(-1), *ends
            )
        return torch._fake_quantize_learnable_per_channel_affine(
            value, scale, zero_point.view(-1), spec.axis, *ends
        )

    def _gradient_scale(self, value: Tensor) -> float:
        shared = self.scale.numel() if self.constant else value.shape[0] if value.dim() else 1
        spec = self.spec
        largest = spec.high if spec.symmetric else spec.high - spec.low
        return 1 / math.sqrt(max(value.numel() / shared, 1) * largest)

    def set_parameters(self, parameters: Parameters) -> None:
        """Set step and zero point in place."""
        self._set(parameters)
        self._start()

    @torch.no_grad()
    def _set(self, parameters: Parameters) -> None:
        self.scale.copy_(parameters.scale.reshape(self.scale.shape))
        self.zero_point.copy_(parameters.zero_point.reshape(self.zero_point.shape))
        if self.offset is not None:
            self.offset.copy_(parameters.zero_point.reshape(()))

    def parameters_now(self) -> Parameters:
        """The scale and zero point in use."""
        zero_point = self.zero_point
        if self.offset is not None:
            found = self.offset.detach().round().clamp(self.spec.low, self.spec.high)
            zero_point = found.to(torch.int32)
        return Parameters(self.scale.detach().abs(), zero_point)

    @torch.no_grad()
    def of_least_error(self, value: Tensor) -> Parameters:
        """Of some grids that end within the range of a constant the one nearest to it."""
        self.cover(value)
        widest = Parameters(self.scale.detach().clone(), self.zero_point.clone())
        if not self.spec.symmetric:
            return widest
        middle = int(widest.zero_point.max())
        ends = (self.spec.low - middle, self.spec.high - middle)
        dims = [d for d in range(value.dim()) if d != self.spec.axis]
        best, least = widest.scale, torch.full_like(widest.scale, torch.inf)
        for fraction in FRACTIONS:
            scale = widest.scale * fraction
            shaped = along(scale, value.dim(), self.spec.axis)
            error = stepped(value, 1 / shaped, shaped, *ends).sub_(value).square_()
            total = error.sum(dims)
            better = total < least
            best, least = torch.where(better, scale, best), torch.where(better, total, least)
        return Parameters(best, widest.zero_point)

    def ir_label(self) -> str:
        """How it prints in a graph."""
        how = "lsq" if self.offset is None else "lsq+"
        return f"train_quantize<{self.spec}, {how}>"
