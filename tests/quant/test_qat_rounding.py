"""Rounding in training: torch's numbers and gradients, and those of observers."""

from __future__ import annotations

import pytest
import torch

from fxquant.quant.arithmetic import affine_parameters, symmetric_parameters
from fxquant.quant.qat.numbers import affine_numbers, symmetric_numbers
from fxquant.quant.qat.rounding import clipped, covered

RANGES = [(-1.0, 2.0), (0.0, 6.0), (-3.0, 0.0), (0.5, 0.7), (0.0, 0.0), (-1e-7, 3e-7), (-90.0, 1e4)]


@pytest.mark.parametrize("ends", RANGES)
@pytest.mark.parametrize("integers", [(-128, 127), (0, 255), (-32767, 32767), (-7, 7)])
def test_numbers_are_those_of_tensors(ends: tuple[float, float], integers: tuple[int, int]) -> None:
    low, high = torch.tensor(ends[0]), torch.tensor(ends[1])
    numbers = affine_numbers(low.item(), high.item(), *integers)
    tensors = affine_parameters(low, high, *integers)
    assert numbers == (tensors.scale.item(), tensors.zero_point.item())
    numbers = symmetric_numbers(low.item(), high.item(), *integers)
    tensors = symmetric_parameters(low, high, *integers)
    assert numbers == (tensors.scale.item(), tensors.zero_point.item())


@pytest.mark.parametrize("zero_point", [-128, -3, 0, 77])
def test_clipped_is_the_kernel_of_torch(zero_point: int) -> None:
    x = torch.randn(3, 50, 7)
    x.requires_grad_()
    other = x.detach().clone().requires_grad_()
    scale = torch.tensor(0.0137)
    mine = clipped(x, scale.item(), -128 - zero_point, 127 - zero_point)
    its = torch.fake_quantize_per_tensor_affine(
        other, scale, torch.tensor(zero_point, dtype=torch.int32), -128, 127
    )
    assert torch.equal(mine, its)
    upstream = torch.randn_like(x)
    mine.backward(upstream)
    its.backward(upstream)
    assert x.grad is not None and other.grad is not None
    assert torch.equal(x.grad, other.grad)
    assert 0 < int((x.grad == 0).sum()) < x.numel()


def test_covered_is_the_kernel_of_torch_and_passes_gradients_on() -> None:
    w = torch.randn(5, 3, 2, 2, requires_grad=True)
    scale = w.detach().abs().amax((1, 2, 3)) / 127
    zeros = torch.zeros(5, dtype=torch.int32)
    its = torch.fake_quantize_per_channel_affine(w, scale, zeros, 0, -127, 127)
    mine = covered(w, scale.view(-1, 1, 1, 1), -127, 127)
    assert torch.equal(mine, its)
    upstream = torch.randn_like(w)
    mine.backward(upstream)
    assert torch.equal(w.grad, upstream)  # type: ignore[arg-type]


def test_torchs_fused_observer_would_spoil_small_weights() -> None:
    """Why `fused_moving_avg_obs_fake_quant` is not used; when this fails, look again."""
    w = torch.linspace(-1e-3, 1e-3, 255).view(1, -1)
    low, high = torch.full((1,), torch.inf), torch.full((1,), -torch.inf)
    scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    on = torch.ones(1, dtype=torch.long)
    torch.fused_moving_avg_obs_fake_quant(
        w, on, on, low, high, scale, zero_point, 1.0, -127, 127, 0, True, True
    )
    assert scale.item() > 5 * 1e-3 / 127
