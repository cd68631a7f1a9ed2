"""Learned steps: gradients against torch's kernels and against differences, and whole trainings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fxquant as fq
from fxquant.errors import ConfigError
from fxquant.quant.config import QuantConfig
from fxquant.quant.qat.learned import LearnedFakeQuantize
from fxquant.quant.qat.learned_rounding import learned_per_channel, learned_per_tensor
from fxquant.quant.settle import fake_quantizes
from fxquant.quant.spec import INT4_WEIGHTS, QuantSpec
from tests.quant.qat_models import Picture, example, train, with_signs


def gradients(result: Tensor, upstream: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(result, leaves, upstream))


def exact(x: Tensor, upstream: Tensor, scale: float, zero_point: float) -> list[Tensor]:
    """The published gradients in float64, for the integers -128 to 127."""
    x, upstream = x.detach().double(), upstream.double()
    free = torch.round(x / scale) + zero_point
    inside = (free >= -128) & (free <= 127)
    integers = free.clamp(-128, 127) - zero_point
    d_scale = torch.where(inside, integers - x / scale, integers) * upstream
    d_offset = torch.where(inside, 0.0, -scale) * upstream
    return [torch.where(inside, upstream, 0.0), d_scale.sum() * 0.3, d_offset.sum() * 0.3]


@pytest.mark.parametrize("zero_point", [-100.0, 0.0, 3.0])
def test_per_tensor_gradients_are_the_published_ones(zero_point: float) -> None:
    x = (torch.randn(4, 30, 5) * 2).requires_grad_()
    upstream = torch.randn_like(x)
    scale = torch.tensor(0.013, requires_grad=True)
    offset = torch.tensor(zero_point, requires_grad=True)
    mine = learned_per_tensor(x, scale, offset, -128, 127, 0.3)
    found = gradients(mine, upstream, x, scale, offset)
    for one, other in zip(found, exact(x, upstream, scale.item(), zero_point), strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-4, atol=1e-5)
    assert found[2] != 0


def test_per_tensor_gradients_are_those_of_torch() -> None:
    """With a zero point, torch's backward rounds differently from its forward at the ends."""
    x = (torch.randn(4, 30, 5) * 2).requires_grad_()
    upstream = torch.randn_like(x)
    scale = torch.tensor(0.013, requires_grad=True)
    offset = torch.tensor(0.0, requires_grad=True)
    mine = learned_per_tensor(x, scale, offset, -128, 127, 0.3)
    its = torch._fake_quantize_learnable_per_tensor_affine(
        x, scale.view(1), offset.view(1), -128, 127, 0.3
    )
    assert torch.equal(mine, its)
    found = gradients(mine, upstream, x, scale, offset)
    expected = gradients(its, upstream, x, scale, offset)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_per_channel_gradients_are_those_of_torch() -> None:
    w = torch.randn(5, 3, 4, 4, requires_grad=True)
    upstream = torch.randn_like(w)
    scale = (torch.rand(5) * 0.2 + 0.1).requires_grad_()
    mine = learned_per_channel(w, scale.view(-1, 1, 1, 1), -7, 7, 0.2)
    its = torch._fake_quantize_learnable_per_channel_affine(w, scale, torch.zeros(5), 0, -7, 7, 0.2)
    assert torch.equal(mine, its)
    for one, other in zip(
        gradients(mine, upstream, w, scale), gradients(its, upstream, w, scale), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_larger_step_is_learned_where_values_are_cut() -> None:
    x = torch.full((10,), 5.0)
    scale = torch.tensor(0.5, requires_grad=True)
    (learned_per_tensor(x, scale, None, -4, 3, 1.0) - x).square().sum().backward()
    assert scale.grad is not None and scale.grad < 0
    # Outside the range the value is scale * 3: the slope is the derivative, not an estimate.
    difference = ((0.501 * 3 - 5) ** 2 - (0.499 * 3 - 5) ** 2) * 10 / 0.002
    assert scale.grad.item() == pytest.approx(difference, rel=1e-3)


def test_weights_begin_with_the_step_of_least_error() -> None:
    weight = torch.randn(6, 64)
    module = LearnedFakeQuantize(INT4_WEIGHTS.along(0), 6, constant=True)
    error = (module(weight) - weight).square().sum(1)
    widest = weight.abs().amax(1, keepdim=True) / 7
    whole = (torch.round(weight / widest) * widest - weight).square().sum(1)
    assert (error <= whole + 1e-6).all() and (error < whole).any()


def test_the_gradient_of_the_step_is_scaled() -> None:
    weight = torch.randn(6, 64)
    module = LearnedFakeQuantize(INT4_WEIGHTS.along(0), 6, constant=True)
    assert module._gradient_scale(weight) == pytest.approx((64 * 7) ** -0.5)
    module = LearnedFakeQuantize(QuantSpec())
    assert module._gradient_scale(torch.randn(8, 3, 5, 5)) == pytest.approx((75 * 255) ** -0.5)


@pytest.mark.parametrize("learned", ["lsq", "lsq+"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_training_with_learned_steps(learned: str, per_channel: bool) -> None:
    torch.manual_seed(0)
    config = QuantConfig(learned=learned, per_channel=per_channel)
    prepared = fq.prepare_qat(with_signs(Picture()), example(), config)
    steps = [name for name, _ in prepared.named_parameters() if name.endswith("scale")]
    assert "quantizers.stem_weight.scale" in steps and "quantizers.relu.scale" in steps
    offsets = [name for name, _ in prepared.named_parameters() if name.endswith("offset")]
    assert bool(offsets) == (learned == "lsq+")
    train(prepared, 1)
    before = {name: p.detach().clone() for name, p in prepared.named_parameters()}
    losses = train(prepared, 25, rate=0.005)
    assert sum(losses[-5:]) < sum(losses[:5])
    moved = [n for n, p in prepared.named_parameters() if not torch.equal(before[n], p)]
    assert set(steps) <= set(moved)
    prepared.eval()
    frozen = fq.convert(prepared)
    x = torch.randn(2, 3, 8, 8)
    error = (frozen(x) - prepared(x)).abs().max() / prepared(x).abs().max()
    # A batch norm by itself has exact weights only with a scale for each channel.
    assert error.item() < (0.02 if per_channel else 0.05)
    fq.verify(fq.lower(frozen), [(x,)]).check()


def test_learned_weights_keep_their_step_when_frozen() -> None:
    torch.manual_seed(0)
    prepared = fq.prepare_qat(Picture(), example(), QuantConfig(learned="lsq"))
    train(prepared, 5)
    learned = dict(prepared.named_parameters())["quantizers.gate_weight.scale"].detach()
    frozen = fq.convert(prepared)
    assert torch.allclose(frozen.get_buffer("gate_weight_scale"), learned.abs() / 6)


def test_calibrate_begins_and_training_goes_on() -> None:
    prepared = fq.prepare_qat(Picture(), example(), QuantConfig(learned="lsq+"))
    fq.calibrate(prepared, [torch.randn(4, 3, 8, 8) for _ in range(3)], progress=False)
    known = {str(n.target): m.is_known() for n, m in fake_quantizes(prepared)}  # type: ignore[operator]
    assert all(known.values())
    fq.convert(prepared)
    train(prepared, 2)
    fq.convert(prepared)


def test_an_unknown_way_of_learning_is_refused() -> None:
    with pytest.raises(ConfigError, match='use learned="lsq"'):
        QuantConfig(learned="pact")
