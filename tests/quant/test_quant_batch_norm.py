"""Batch norms: statistics found again, and norms made anew where they were folded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import CalibrationError, InputError
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.batch_norm import Moments, reestimate_batch_norm, restore_batch_norm


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)
    ).eval()


def norm(model: nn.Sequential, place: int) -> nn.BatchNorm2d:
    found = model[place]
    assert isinstance(found, nn.BatchNorm2d)
    return found


def statistics(model: nn.Sequential, place: int) -> tuple[Tensor, Tensor, int]:
    """Running mean and variance, and how many batches were counted."""
    found = norm(model, place)
    assert found.running_mean is not None and found.running_var is not None
    assert found.num_batches_tracked is not None
    return found.running_mean, found.running_var, int(found.num_batches_tracked)


def batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [2 + 3 * torch.randn(size, 3, 9, 9, generator=generator) for size in sizes]


def test_statistics_are_those_of_all_data_whatever_the_batches() -> None:
    model, data = net(), batches(4, 1, 7)
    momentum = norm(model, 1).momentum
    assert reestimate_batch_norm(model, data) is model
    value = model[0](torch.cat(data)).transpose(0, 1).flatten(1)
    mean, variance, counted = statistics(model, 1)
    assert torch.allclose(mean, value.mean(1), atol=1e-5)
    assert torch.allclose(variance, value.var(1), rtol=1e-4)
    assert (norm(model, 1).momentum, counted) == (momentum, len(data))
    assert not any(module.training for module in model.modules())


def test_a_norm_behind_another_sees_normalized_values() -> None:
    model, (batch,) = net(), batches(16)
    reestimate_batch_norm(model, [batch])
    trained = net().train()
    trained(batch)
    wanted = model[3](torch.relu(trained[1](trained[0](batch)))).transpose(0, 1).flatten(1)
    assert torch.allclose(statistics(model, 4)[0], wanted.mean(1), atol=1e-4)
    # So in eval mode the output is normalized: mean 0, variance 1.
    out = model(batch).transpose(0, 1).flatten(1)
    assert out.mean(1).abs().max() < 1e-3
    assert (out.var(1) - 1).abs().max() < 1e-2


def test_modes_hooks_and_tuples() -> None:
    model = net().train()
    model[1].eval()
    reestimate_batch_norm(
        model, [(batch, "label") for batch in batches(2)], transform=lambda b: b[0]
    )
    assert [module.training for module in model] == [True, False, True, True, True]
    assert not model[1]._forward_pre_hooks


def test_a_graph_prepared_for_training_is_taken() -> None:
    data = batches(4, 4)
    graph = fq.prepare_qat(net(), (data[0],))
    before = {
        name: value.clone() for name, value in graph.state_dict().items() if "running" in name
    }
    reestimate_batch_norm(graph, data)
    after = graph.state_dict()
    assert before
    assert all(not torch.equal(after[name], value) for name, value in before.items())


def test_what_cannot_be_estimated() -> None:
    with pytest.raises(InputError, match=r"no batch norm.*\n.*restore_batch_norm"):
        reestimate_batch_norm(nn.Linear(2, 2), [torch.zeros(1, 2)])
    with pytest.raises(CalibrationError, match="there are no data"):
        reestimate_batch_norm(net(), [])


def folded(model: nn.Module, x: Tensor) -> torch.fx.GraphModule:
    return Pipeline.default("float")(fq.trace(model, (x,)))


def test_folded_norms_come_back_and_compute_nothing() -> None:
    data = batches(4, 4)
    core = folded(net(), data[0])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in core.modules())
    restored = restore_batch_norm(core, data)
    norms = [module for module in restored.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2
    x = batches(3)[0][:4]
    x = torch.cat([x, x[:1]])[:4]
    assert torch.allclose(restored(x), core(x), atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in core.modules())


def test_a_restored_norm_normalizes_in_training() -> None:
    data = batches(8)
    restored = restore_batch_norm(folded(net(), data[0]), data)
    restored.train()
    # The statistics of the batch are those of the data: training computes what eval does.
    assert torch.allclose(restored(data[0]), restored.eval()(data[0]), atol=1e-2)
    counted = [value for name, value in restored.state_dict().items() if "tracked" in name]
    assert [int(value) for value in counted] == [1, 1]


def test_a_restored_graph_trains_quantized() -> None:
    data = batches(4, 4)
    restored = restore_batch_norm(folded(net(), data[0]), data)
    graph = fq.prepare_qat(restored, (data[0],))
    graph.train()
    graph(data[0]).square().mean().backward()
    graph.eval()
    report = fq.convert(graph)
    assert torch.isfinite(report(data[1])).all()


def test_what_cannot_be_restored() -> None:
    data = batches(2)
    with pytest.raises(InputError, match="functional graph in float"):
        restore_batch_norm(fq.trace(net(), (data[0],)), data)
    with pytest.raises(InputError, match="no convolution without a batch norm"):
        restore_batch_norm(folded(nn.ReLU(), data[0]), data)
    with pytest.raises(CalibrationError, match="there are no data"):
        restore_batch_norm(folded(net(), data[0]), [])


def test_moments_do_not_depend_on_how_data_are_cut() -> None:
    torch.manual_seed(0)
    value = 100 + torch.randn(10, 3, 4)
    whole, parts = Moments(), Moments()
    whole.add(value)
    for part in value.split(3):
        parts.add(part)
    assert torch.allclose(whole.mean, parts.mean)
    assert torch.allclose(whole.variance, parts.variance)
