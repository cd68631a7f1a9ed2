"""Tied grids (see `quant.tied_grids`) in training: a scale for each gate, or a power of two.

They follow the values as other grids do, and are never learned: a learned step would leave the
line that the kernel holds them to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxquant.quant.arithmetic import Parameters
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from fxquant.quant.spec import QuantSpec
from fxquant.quant.tied_grids import power_of_two, tied_blocks


class GateFakeQuantize(TrainedFakeQuantize):
    """The weights of a recurrent layer, one scale for each gate."""

    @torch.no_grad()
    def cover(self, value: Tensor) -> None:
        """Set the scale of each gate to its range."""
        super().cover(value)
        self.scale.copy_(tied_blocks(self.scale))


class StateFakeQuantize(TrainedFakeQuantize):
    """A cell state, whose scale is a power of two and never shrinks."""

    def __init__(self, spec: QuantSpec, channels: int = 1, *, constant: bool = False) -> None:
        super().__init__(spec, channels, constant=constant)
        self.observer.momentum = 0.0

    def set_parameters(self, parameters: Parameters) -> None:
        """Set the scale to the next power of two."""
        super().set_parameters(Parameters(power_of_two(parameters.scale), parameters.zero_point))

    @torch.no_grad()
    def _take_range(self, value: Tensor) -> None:
        super()._take_range(value)
        self.scale.copy_(power_of_two(self.scale))


TIED: dict[str, type[TrainedFakeQuantize]] = {
    "gates": GateFakeQuantize,
    "power_of_two": StateFakeQuantize,
}
"""By the observer that `prepare` would use."""
