"""FakeQuantize: a value rounded to its grid, in floating point; the observer stands inside.

Three modes: *observing* (the value passes unchanged and is measured), *quantizing* (the value is
rounded) and off. `prepare` makes them off, `calibrate` observes and then switches to quantizing;
both at once is training.

Grids whose parameters are prescribed or found while the program runs, and the narrow floating
point dtypes, have nothing to observe; modes and gradients are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fxquant.quant.tied_grids
import fxquant.quant.weight_range  # noqa: F401 - registers its observer
from fxquant.quant.arithmetic import Parameters, along
from fxquant.quant.narrow import dynamically_quantized, rounded_to
from fxquant.quant.observers import Observer, make_observer, state_problem
from fxquant.quant.qat.rounding import stepped, vectorized
from fxquant.quant.spec import QuantSpec


class FakeQuantize(nn.Module):
    """Rounds a value to the grid of its spec, straight-through for gradients.

    Args:
        spec: dtype, range and observer.
        channels: number of channels along `spec.axis`.
        constant: the value is a weight or another constant; its range is that of the tensor at
            hand and
            needs no calibration.
    """

    scale: Tensor
    zero_point: Tensor
    follows_value = False
    """Whether scale and zero point are computed anew in each call (see `qat.fake_quantize`)."""
    trained = False
    """Whether the parameters of a constant come from training and stay as they are."""

    def __init__(self, spec: QuantSpec, channels: int = 1, *, constant: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.channels = channels
        self.constant = constant
        self.observer: Observer = make_observer(spec, channels)
        self.observing = False
        self.quantizing = False
        self.assigned = False
        scale, zero_point = spec.fixed or (1.0, 0)
        shape = () if spec.axis is None else (channels,)
        self.register_buffer("scale", torch.full(shape, scale))
        self.register_buffer("zero_point", torch.full(shape, zero_point, dtype=torch.int32))

    def forward(self, value: Tensor) -> Tensor:
        """The value, measured and rounded as the mode says."""
        if self.observing and self.spec.observed:
            self.measure(value)
        return self.rounded(value) if self.quantizing else value

    @property
    def is_fixed(self) -> bool:
        """Whether no data can change the parameters: prescribed, dynamic, or none at all."""
        return not self.spec.observed

    @property
    def has_grid(self) -> bool:
        """Whether scale and zero point are one set of constants."""
        return not self.spec.rounds and not self.spec.dynamic

    def measure(self, value: Tensor) -> None:
        """Let the observer see a value; of a constant only the present one counts."""
        observer = self.observer
        if self.constant:
            observer.reset()
        if value.numel():
            observer.observe(value.detach())
        if self.constant or self.quantizing:
            self.take_parameters()

    def take_parameters(self) -> None:
        """Set scale and zero point from what the observer saw."""
        if self.is_fixed:
            return
        self.set_parameters(self.observer.parameters_of())

    def set_parameters(self, parameters: Parameters) -> None:
        """Set scale and zero point; `assigned` says from then on that they are meant."""
        device = self.scale.device
        self.scale = parameters.scale.to(device, torch.float32).reshape(self.scale.shape)
        self.zero_point = parameters.zero_point.to(device, torch.int32).reshape(self.scale.shape)
        self.assigned = True

    def parameters_now(self) -> Parameters:
        """The scale and zero point in use."""
        return Parameters(self.scale, self.zero_point)

    def problem(self) -> str | None:
        """What keeps this value from being quantized, or None."""
        known = self.is_fixed or self.constant or self.assigned
        return None if known else state_problem(self.observer)

    def rounded(self, value: Tensor) -> Tensor:
        """The value on its grid."""
        low, high = self.spec.low, self.spec.high
        if self.spec.rounds:
            return rounded_to(value, self.spec.dtype)
        if self.spec.dynamic:
            return dynamically_quantized(value, self.spec.dims, low, high)
        if self._is_plain(value):
            zero_point = int(self.zero_point.reshape(-1)[0])
            scale = along(self.scale, value.dim(), self.spec.axis)
            return stepped(value, scale.reciprocal(), scale, low - zero_point, high - zero_point)
        if self.spec.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                value, self.scale, self.zero_point, low, high
            )
        return torch.fake_quantize_per_channel_affine(
            value, self.scale, self.zero_point, self.spec.axis, low, high
        )

    def _is_plain(self, value: Tensor) -> bool:
        """Whether a few vectorized steps give the same bits, ten times as fast on a CPU."""
        wanted = torch.is_grad_enabled() and value.requires_grad
        one_zero_point = self.spec.axis is None or self.spec.symmetric
        return one_zero_point and not wanted and value.dtype == torch.float32 and vectorized(value)

    def switch(self, *, observing: bool, quantizing: bool) -> None:
        """Choose the mode."""
        self.observing, self.quantizing = observing, quantizing

    def get_extra_state(self) -> Tensor:
        """The mode, so that a loaded checkpoint goes on where it was."""
        flags = [self.observing, self.quantizing, self.assigned]
        return torch.tensor(flags, dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the mode."""
        self.observing, self.quantizing, self.assigned = map(bool, state.tolist())

    def ir_label(self) -> str:
        """How it prints in a graph: the spec, and the parameters once they are known."""
        return f"fake_quantize<{self.spec}>"

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        mode = [name for name in ("observing", "quantizing") if getattr(self, name)]
        return f"{self.spec}, {' and '.join(mode) or 'off'}"
