"""The generated file computes what the graph computes, and goes back into the pipeline."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import fxquant as fq
from tests.backends.source.source_models import CASES, SmallResNet
from tests.conftest import Golden
from tests.tracing.replay import call, tensors_of


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CASES)
def test_file_equals_graph_and_traces_to_it(name: str, training: bool, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    model = case.make().train(training)
    args, kwargs = copy.deepcopy((case.args, case.kwargs))
    graph = fq.trace(model, args, kwargs=kwargs)
    lowered = fq.lower(graph, "source")
    lowered.save(tmp_path / "model.py")
    if not kwargs:
        report = fq.verify(lowered, [args, args])
        assert report.ok, report.render()
    made = fq.load_model(tmp_path / "model.py")
    assert made.training == training
    expected = tensors_of(call(copy.deepcopy(graph), case.args, case.kwargs))
    found = tensors_of(call(copy.deepcopy(made), case.args, case.kwargs))
    assert len(expected) == len(found)
    assert all(torch.equal(left, right) for left, right in zip(expected, found, strict=True))
    again = fq.trace(made, *copy.deepcopy((case.args,)), kwargs=copy.deepcopy(case.kwargs))
    assert (fq.format_graph(again) == fq.format_graph(graph)) == case.same_text


@pytest.mark.parametrize("name", CASES)
def test_checkpoints_of_the_original_fit(name: str, tmp_path: Path) -> None:
    model = CASES[name].make().eval()
    kwargs = copy.deepcopy(CASES[name].kwargs)
    graph = fq.trace(model, copy.deepcopy(CASES[name].args), kwargs=kwargs)
    fq.lower(graph, "source").save(tmp_path / "model.py")
    fresh = type(fq.load_model(tmp_path / "model.py"))()
    fresh.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        torch.manual_seed(1)
        args, kwargs = copy.deepcopy((CASES[name].args, CASES[name].kwargs))
        expected = graph(*args, **kwargs)
        torch.manual_seed(1)
        args, kwargs = copy.deepcopy((CASES[name].args, CASES[name].kwargs))
        found = fresh.eval()(*args, **kwargs)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("name", ["resnet", "shared", "structures", "lists", "dense"])
def test_text(name: str, golden: Golden) -> None:
    model = CASES[name].make().eval()
    graph = fq.trace(model, CASES[name].args, kwargs=copy.deepcopy(CASES[name].kwargs))
    golden(name, bytes(fq.lower(graph, "source").segments()[0]).decode())


def test_what_is_not_trained_stays_so_and_modes_are_kept(tmp_path: Path) -> None:
    model = SmallResNet().train()
    model.get_submodule("layer1.0.bn1").eval()
    model.widen.requires_grad_(False)
    model.fc.bias.requires_grad_(False)
    graph = fq.trace(model, (CASES["resnet"].args[0],))
    lowered = fq.lower(graph, "source")
    assert fq.verify(lowered, [CASES["resnet"].args]).ok
    lowered.save(tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    modes = {name: module.training for name, module in made.named_modules()}
    assert [name for name, training in modes.items() if not training] == ["layer1.0.bn1"]
    fixed = [name for name, each in made.named_parameters() if not each.requires_grad]
    assert fixed == ["widen.weight", "widen.bias", "fc.bias"]


def test_a_layer_of_another_library_is_refused(tmp_path: Path) -> None:
    class Odd(nn.ReLU):
        """Passes for a module of torch, and has no constructor that the file could call."""

    Odd.__module__ = "torch.nn.modules.odd"
    model = nn.Sequential(nn.Linear(3, 3), Odd())
    setattr(model[1], "extra", object())  # noqa: B010 (Module's type knows only modules)
    graph = fq.trace(model, (torch.randn(1, 3),))
    with pytest.raises(fq.FxquantError) as raised:
        fq.lower(graph, "source")
    assert "cannot be written as code" in str(raised.value)
    assert "1: Odd" in str(raised.value) or "1: a object" in str(raised.value)
