"""Scales that a kernel ties: one a gate, powers of two; calibrated and in training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.qat.tied_grids import GateFakeQuantize, StateFakeQuantize
from fxquant.quant.spec import INT8_WEIGHTS
from fxquant.quant.tied_grids import CELL_STATE

GATES = replace(INT8_WEIGHTS, observer="gates").along(0)


@pytest.mark.parametrize("kind", [FakeQuantize, GateFakeQuantize])
def test_each_gate_has_the_scale_of_its_largest_weight(kind: type[FakeQuantize]) -> None:
    weight = torch.randn(12, 5)
    module = kind(GATES, 12, constant=True)
    module.switch(observing=kind is FakeQuantize, quantizing=True)
    module(weight)
    wanted = (weight.abs().reshape(4, -1).amax(1) / 127).repeat_interleave(3)
    torch.testing.assert_close(module.scale, wanted)


@pytest.mark.parametrize(("largest", "exponent"), [(0.3, -15), (3.0, -12), (4.1, -11), (900.0, -9)])
def test_a_calibrated_cell_state_has_room_for_twice_its_range(
    largest: float, exponent: int
) -> None:
    module = FakeQuantize(CELL_STATE)
    module.observer(torch.tensor([-0.1, largest]))
    module.take_parameters()
    assert module.scale.log2().item() == exponent


def test_a_trained_cell_state_never_loses_room() -> None:
    module = StateFakeQuantize(CELL_STATE).train()
    for largest in (0.9, 7.0, 0.1):
        module(torch.tensor([largest, -largest]))
    assert module.scale.log2().item() == -12
    value = torch.tensor([5.00011], requires_grad=True)
    module(value).sum().backward()
    assert value.grad is not None and value.grad.item() == 1.0
