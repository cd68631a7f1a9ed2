"""FakeQuantize that trains: its range follows the value, and gradients pass straight through.

| value | in `train()` | in `eval()` |
|---|---|---|
| activation | the range takes the batch in, then the value is rounded | rounded |
| weight, constant | rounded to the range that it has now | the same |

Before the first batch an activation passes unchanged. Numbers are those of `arithmetic`. torch's
`fused_moving_avg_obs_fake_quant` is not used: it raises scales below 6.1e-5, which spoils small
weights, and spreads symmetric ranges over one integer more than TFLite's -127 to 127.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxquant.quant.arithmetic import (
    EMPTY_RANGE,
    SMALLEST_SCALE,
    Parameters,
    affine_parameters,
    along,
    symmetric_parameters,
)
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.qat.checkpoint_entries import OptionalState
from fxquant.quant.qat.rounding import clipped, covered, vectorized
from fxquant.quant.qat.running_range import RunningRange
from fxquant.quant.spec import QuantSpec


class _Range(OptionalState, RunningRange):
    """The range of a trained FakeQuantize."""


class TrainedFakeQuantize(OptionalState, FakeQuantize):
    """Rounds a value in training; its range follows while `tracking`.

    Args:
        spec: dtype and range; the observer is `moving_average` or `minmax`.
        channels: number of channels along `spec.axis`.
        constant: the value is a weight or another constant.
    """

    follows_value = True
    observer: RunningRange

    def __init__(self, spec: QuantSpec, channels: int = 1, *, constant: bool = False) -> None:
        super().__init__(spec, channels, constant=constant)
        self.observer = _Range(spec, channels)
        self.quantizing = True
        self.tracking = True

    def forward(self, value: Tensor) -> Tensor:
        """The value on its grid, in float32."""
        if self.observing:
            return super().forward(value)
        value = value if value.dtype == torch.float32 else value.float()
        if not value.numel():
            return value
        self.follow(value.detach())
        return self.rounded(value) if self.quantizing and self.is_known() else value

    def follow(self, value: Tensor) -> None:
        """Bring scale and zero point up to date before a value is rounded."""
        if self.constant:
            self.cover(value)
        elif self.training and self.tracking and not self.is_fixed:
            self.observer.observe(value)
            self._take_range(value)

    @torch.no_grad()
    def cover(self, value: Tensor) -> None:
        """Set the scale to the range of a constant at hand."""
        spec = self.spec
        if spec.axis is None:
            low, high = torch.aminmax(value)
        else:
            rows = value.transpose(0, spec.axis).flatten(1)
            low, high = rows.amin(1), rows.amax(1)
        if spec.symmetric and spec.low == -spec.high:
            largest = torch.maximum(-low, high)
            scale = torch.where(largest > 0, largest, EMPTY_RANGE) / spec.high
            self.scale.copy_(scale.clamp_(min=SMALLEST_SCALE))
            return
        compute = symmetric_parameters if spec.symmetric else affine_parameters
        self._set(compute(low, high, spec.low, spec.high))

    def _take_range(self, value: Tensor) -> None:
        if vectorized(value) and self.spec.axis is None:
            if not int(self.observer.batches.item()):
                return
            scale, zero_point = self.observer.numbers()
            self.scale.fill_(scale)
            self.zero_point.fill_(zero_point)
            self.assigned = True
        else:
            low, high = self.observer.range()
            compute = symmetric_parameters if self.spec.symmetric else affine_parameters
            self.set_parameters(compute(low, high, self.spec.low, self.spec.high))

    def set_parameters(self, parameters: Parameters) -> None:
        """Set scale and zero point in place."""
        self._set(parameters)
        self.assigned = True

    @torch.no_grad()
    def _set(self, parameters: Parameters) -> None:
        self.scale.copy_(parameters.scale.reshape(self.scale.shape))
        self.zero_point.copy_(parameters.zero_point.reshape(self.zero_point.shape))

    def is_known(self) -> bool:
        """Whether there is a grid to round to."""
        if not (self.constant or self.is_fixed or self.assigned):
            # A copy that an EMA made before the first batch has the buffers, not the flag.
            self.assigned = self.observer.seen
            return self.assigned
        return True

    def rounded(self, value: Tensor) -> Tensor:
        """The value on its grid."""
        if not vectorized(value):
            return super().rounded(value)
        spec = self.spec
        if self.constant and spec.symmetric and spec.low == -spec.high:
            scale = along(self.scale, value.dim(), spec.axis)
            return covered(value, scale, spec.low, spec.high)
        if spec.axis is not None:
            return super().rounded(value)
        zero_point = int(self.zero_point.item())
        return clipped(value, self.scale.item(), spec.low - zero_point, spec.high - zero_point)

    def switch(self, *, observing: bool, quantizing: bool) -> None:
        """Choose the mode; while `calibrate` observes, nothing is rounded."""
        super().switch(observing=observing and not self.is_fixed, quantizing=quantizing)

    def get_extra_state(self) -> Tensor:
        """The mode, so that a loaded checkpoint goes on where it was."""
        return torch.cat([super().get_extra_state(), torch.tensor([self.tracking]).byte()])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the mode."""
        super().set_extra_state(state[:3])
        self.tracking = bool(state[3])

    def ir_label(self) -> str:
        """How it prints in a graph."""
        return f"train_quantize<{self.spec}>"
