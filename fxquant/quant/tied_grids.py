"""Grids that a kernel ties: one scale for a block of rows, or a scale that is a power of two.

    gates           the weights of a recurrent layer, [4 * hidden, inputs]: one scale for each gate
    power_of_two    a cell state: twice the largest magnitude seen, then up to a power of two

Both are observers, and both say how a scale from elsewhere is brought into line (`tied`), so that
training ties its scales as calibration does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxquant.quant.arithmetic import Parameters
from fxquant.quant.observers import Headroom, Observer, register_observer
from fxquant.quant.spec import QuantSpec

GATES = 4
"""Blocks of rows of an LSTM's weights."""

FINEST, COARSEST = 2.0**-15, 2.0**-9
"""Of a cell state: finer than what is added to it makes no sense, and beyond 64 tanh is 1."""

CELL_STATE = QuantSpec("int16", symmetric=True, observer="power_of_two")
"""The cell state of an LSTM that computes in integers."""


def tied_blocks(scale: Tensor) -> Tensor:
    """The largest scale of each quarter, for all of the quarter.

    >>> tied_blocks(torch.tensor([1.0, 2.0, 3.0, 3.0, 0.0, 1.0, 5.0, 4.0])).tolist()
    [2.0, 2.0, 3.0, 3.0, 1.0, 1.0, 5.0, 5.0]
    """
    if scale.dim() == 0:
        return scale
    blocks = scale.reshape(GATES, -1)
    return blocks.amax(1, keepdim=True).expand_as(blocks).reshape(-1)


def power_of_two(scale: Tensor) -> Tensor:
    """The next power of two that is not below a scale, within what a cell state can have.

    >>> power_of_two(torch.tensor([0.0002, 1e-9, 2.0**-10])).log2().tolist()
    [-12.0, -15.0, -10.0]
    """
    fraction, exponent = torch.frexp(scale.double())
    exponent = torch.where(fraction == 0.5, exponent - 1, exponent)
    found = torch.ldexp(torch.ones_like(fraction), exponent)
    return found.clamp(FINEST, COARSEST).float()


@register_observer("gates")
class Gates(Observer):
    """The smallest and the largest value, with one scale for each gate."""

    def tied(self, scale: Tensor) -> Tensor:
        """One scale for each gate; the largest keeps room for all."""
        return tied_blocks(scale)

    def parameters_of(self, spec: QuantSpec | None = None) -> Parameters:
        found = super().parameters_of(spec)
        return Parameters(self.tied(found.scale), found.zero_point)


@register_observer("power_of_two")
class PowerOfTwo(Headroom):
    """Room for twice what was seen, with a scale that is a power of two."""

    def tied(self, scale: Tensor) -> Tensor:
        """A power of two."""
        return power_of_two(scale)

    def parameters_of(self, spec: QuantSpec | None = None) -> Parameters:
        found = super().parameters_of(spec)
        return Parameters(self.tied(found.scale), found.zero_point)
