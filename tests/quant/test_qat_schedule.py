"""Schedules: ranges and statistics that stand still, through any number of train() and eval()."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import CalibrationError
from fxquant.quant.qat.batch_norm import TrainedBatchNorm
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from tests.quant.qat_models import Picture, example, train, with_signs

SHAPE = (4, 3, 8, 8)


@pytest.fixture
def prepared() -> GraphModule:
    torch.manual_seed(0)
    return fq.prepare_qat(with_signs(Picture()), example())


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: b.clone() for n, b in model.named_buffers() if "running" in n or "num_batches" in n}


def ranges(model: nn.Module) -> dict[str, torch.Tensor]:
    names = ("observer.low", "observer.high")
    return {n: b.clone() for n, b in model.named_buffers() if n.endswith(names)}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_eps_momentum_and_p_survive_any_number_of_switches(prepared: GraphModule) -> None:
    for _ in range(3):
        prepared.train()
        prepared(torch.randn(SHAPE))
        prepared.eval()
        prepared(torch.randn(SHAPE))
    norm = prepared.get_submodule("depthwise_bn")
    assert isinstance(norm, TrainedBatchNorm) and (norm.eps, norm.momentum) == (1e-3, 0.03)
    dropout = prepared.get_submodule("dropout")
    assert isinstance(dropout, nn.Dropout) and dropout.p == 0.1
    twin = nn.BatchNorm2d(8, eps=1e-3, momentum=0.03)
    twin.load_state_dict({k: v for k, v in norm.state_dict().items() if "extra" not in k})
    x = torch.randn(4, 8, 5, 5)
    assert torch.equal(twin(x), norm.train()(x))
    assert torch.equal(twin.running_var, norm.running_var)  # type: ignore[arg-type]


def test_evaluation_changes_nothing(prepared: GraphModule) -> None:
    train(prepared, 2)
    prepared.eval()
    prepared(torch.randn(SHAPE))  # the scales of weights follow the last step
    before = copy.deepcopy(prepared.state_dict())
    for _ in range(2):
        prepared(torch.randn(SHAPE) * 100)
    after = prepared.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_frozen_statistics_stay_frozen_in_train_mode(prepared: GraphModule) -> None:
    train(prepared, 2)
    fq.qat.freeze_batch_norms(prepared)
    before, gamma = statistics(prepared), prepared.get_parameter("pre.weight").detach().clone()
    prepared.eval()
    prepared.train()
    train(prepared, 2)
    assert same(before, statistics(prepared))
    assert not torch.equal(gamma, prepared.get_parameter("pre.weight"))
    fq.qat.freeze_batch_norms(prepared, False)
    train(prepared, 1)
    assert not same(before, statistics(prepared))


def test_ranges_that_stand_still(prepared: GraphModule) -> None:
    train(prepared, 2)
    fq.qat.track_ranges(prepared, False)
    before = {n: t for n, t in ranges(prepared).items() if "_weight." not in n}
    train(prepared, 2)
    assert same(before, ranges(prepared))


def test_values_pass_in_float_while_ranges_follow(prepared: GraphModule) -> None:
    fq.qat.quantize_values(prepared, False)
    model = with_signs(Picture())
    prepared.load_state_dict(model.state_dict())
    x = torch.randn(SHAPE)
    for dropout in (model.dropout, prepared.get_submodule("dropout")):
        assert isinstance(dropout, nn.Dropout)
        dropout.p = 0.0
    assert torch.allclose(prepared(x), model(x), atol=1e-5)
    fq.qat.quantize_values(prepared)
    prepared.eval()
    assert not torch.allclose(prepared(x), model.eval()(x), atol=1e-5)
    fq.convert(prepared)


def test_a_schedule_switches_at_its_steps_and_resumes(prepared: GraphModule) -> None:
    def made(model: nn.Module) -> fq.qat.QatSchedule:
        return fq.qat.QatSchedule(
            model, quantize_from=1, freeze_ranges_at=2, freeze_batch_norms_at=3
        )

    schedule, seen = made(prepared), []
    quantizer, norm = prepared.get_submodule("quantizers.relu"), prepared.get_submodule("pre")
    assert isinstance(quantizer, TrainedFakeQuantize) and isinstance(norm, TrainedBatchNorm)
    for _ in range(5):
        seen.append((quantizer.quantizing, quantizer.tracking, norm.frozen))
        train(prepared, 1)
        schedule.step()
    assert seen == [
        (False, True, False),
        (True, True, False),
        (True, False, False),
        (True, False, True),
        (True, False, True),
    ]
    other = fq.prepare_qat(Picture(), example())
    resumed = made(other)
    resumed.load_state_dict(schedule.state_dict())
    norm = other.get_submodule("pre")
    assert isinstance(norm, TrainedBatchNorm) and norm.frozen


def test_statistics_are_measured_again(prepared: GraphModule) -> None:
    train(prepared, 2)
    batches = [torch.randn(SHAPE) * 3 for _ in range(4)]
    modes = [module.training for module in prepared.modules()]
    weights, before = ranges(prepared), statistics(prepared)
    fq.qat.reestimate_batch_norm(prepared, [(b, 0) for b in batches], transform=lambda b: b[0])
    assert same(weights, ranges(prepared))
    assert not same(before, statistics(prepared))
    assert modes == [module.training for module in prepared.modules()]
    once = statistics(prepared)
    fq.qat.reestimate_batch_norm(prepared, batches)
    assert same(once, statistics(prepared))
    assert int(prepared.get_buffer("pre.num_batches_tracked")) == 4
    with pytest.raises(CalibrationError, match="no data"):
        fq.qat.reestimate_batch_norm(prepared, [])


def test_a_batch_that_is_not_finite_leaves_ranges_alone(prepared: GraphModule) -> None:
    train(prepared, 2)
    quantizer = prepared.get_submodule("quantizers.x_quant")
    before = quantizer.scale.clone()  # type: ignore[operator]
    quantizer.train()(torch.tensor([torch.nan, 1.0]))
    quantizer(torch.tensor([torch.inf, 1.0]))
    assert torch.equal(before, quantizer.scale)  # type: ignore[arg-type]
