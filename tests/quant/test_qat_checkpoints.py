"""Checkpoints, pickles and copies at every stage, into processes that have seen nothing."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import InputError
from fxquant.quant.config import QuantConfig
from tests.project.source_tree import ROOT
from tests.quant.qat_models import Picture, example, train, with_signs

X = torch.linspace(-2, 2, 2 * 3 * 64).view(2, 3, 8, 8)


def in_a_fresh_process(script: str, folder: Path) -> Tensor:
    """What a script saves as out.pt."""
    head = "import torch, fxquant as fq\nfrom tests.quant.qat_models import Picture, example\n"
    head += "x = torch.linspace(-2, 2, 2 * 3 * 64).view(2, 3, 8, 8)\n"
    code = f"{head}{textwrap.dedent(script)}\ntorch.save(out.detach(), 'out.pt')\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: Tensor = torch.load(folder / "out.pt")
    return found


@pytest.fixture(scope="module", params=[None, "lsq+"])
def learned(request: pytest.FixtureRequest) -> str | None:
    found: str | None = request.param
    return found


@pytest.fixture
def prepared(learned: str | None) -> GraphModule:
    torch.manual_seed(0)
    made = fq.prepare_qat(with_signs(Picture()), example(), QuantConfig(learned=learned))
    train(made, 3)
    fq.qat.freeze_batch_norms(made)
    fq.qat.track_ranges(made, False)
    return made


def test_every_stage_goes_into_a_fresh_process(
    prepared: GraphModule, learned: str | None, tmp_path: Path
) -> None:
    torch.save(prepared.state_dict(), tmp_path / "state.pt")
    torch.save(prepared, tmp_path / "prepared.pt")
    frozen = fq.convert(prepared)
    torch.save(frozen, tmp_path / "frozen.pt")
    torch.save(frozen.state_dict(), tmp_path / "frozen_state.pt")
    expected = torch.stack([prepared.eval()(X), prepared(X), frozen(X), frozen(X)])
    script = f"""
        config = fq.QuantConfig(learned={learned!r})
        prepared = fq.prepare_qat(Picture(), example(), config)
        prepared.load_state_dict(torch.load("state.pt"))
        assert prepared.get_submodule("pre").frozen
        assert not prepared.get_submodule("quantizers.relu").tracking
        whole = torch.load("prepared.pt", weights_only=False).eval()
        frozen = fq.convert(prepared)
        frozen.load_state_dict(torch.load("frozen_state.pt"))
        pickled = torch.load("frozen.pt", weights_only=False)
        out = torch.stack([m(x) for m in (prepared.eval(), whole, frozen, pickled)])
        assert len(fq.lower(pickled).to_bytes()) > 1000
    """
    assert torch.equal(in_a_fresh_process(script, tmp_path), expected)


def test_copies_train_apart(prepared: GraphModule) -> None:
    twin = copy.deepcopy(prepared)
    other = pickle.loads(pickle.dumps(prepared))
    before = copy.deepcopy(prepared.state_dict())
    for model in (twin, other):
        torch.manual_seed(1)
        train(model, 2)
    assert all(torch.equal(before[k], v) for k, v in prepared.state_dict().items())
    torch.manual_seed(1)
    train(prepared, 2)
    for model in (twin, other):
        assert torch.equal(model.eval()(X), prepared.eval()(X))


def test_a_checkpoint_of_the_float_model_loads(prepared: GraphModule, tmp_path: Path) -> None:
    model = with_signs(Picture())
    prepared.load_state_dict(model.state_dict())
    save_file(model.state_dict(), tmp_path / "float.safetensors")
    torch.save(model.state_dict(), tmp_path / "float.pt")
    for name in ("float.safetensors", "float.pt"):
        fresh = fq.prepare_qat(Picture(), example())
        fq.qat.load_checkpoint(fresh, tmp_path / name)
        for path, tensor in model.state_dict().items():
            assert torch.equal(fresh.state_dict()[path], tensor)


def test_a_float_checkpoint_keeps_the_ranges(prepared: GraphModule) -> None:
    scale = prepared.get_submodule("quantizers.relu").state_dict()["scale"].clone()
    fq.qat.load_checkpoint(prepared, Picture().state_dict())
    assert torch.equal(scale, prepared.get_submodule("quantizers.relu").state_dict()["scale"])


def test_prefixes_of_wrappers_are_understood(prepared: GraphModule, learned: str | None) -> None:
    average = torch.optim.swa_utils.AveragedModel(prepared)
    fresh = fq.prepare_qat(Picture(), example(), QuantConfig(learned=learned))
    fq.qat.load_checkpoint(fresh, average.state_dict())
    assert torch.equal(fresh.eval()(X), prepared.eval()(X))


class Wider(Picture):
    """Another graph with some of the same names."""

    def __init__(self) -> None:
        super().__init__()
        del self.head
        self.add_module("head", nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))
        self.gate = nn.Conv2d(8, 8, 1, groups=8)


def test_a_checkpoint_of_another_graph_lists_what_differs(prepared: GraphModule) -> None:
    before = copy.deepcopy(prepared.state_dict())
    for checkpoint in (Wider().state_dict(), fq.prepare_qat(Wider(), example()).state_dict()):
        with pytest.raises(InputError) as error:
            fq.qat.load_checkpoint(prepared, checkpoint)
        for text in (
            "the checkpoint does not fit the model",
            "missing: head.weight [4, 8]",
            "unexpected: head.0.weight [8, 8]",
            "mismatched: gate.weight is [8, 1, 1, 1], the model has [8, 8, 1, 1]",
        ):
            assert text in str(error.value)
    after = prepared.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_prepared_checkpoint_must_have_every_quantizer(prepared: GraphModule) -> None:
    state = prepared.state_dict()
    del state["quantizers.relu.scale"]
    with pytest.raises(InputError, match="missing: quantizers.relu.scale"):
        fq.qat.load_checkpoint(prepared, state)


def test_a_file_that_is_not_there(prepared: GraphModule) -> None:
    with pytest.raises(InputError, match=r"there is no checkpoint nowhere.pt"):
        fq.qat.load_checkpoint(prepared, "nowhere.pt")


class TiedAndUnread(nn.Module):
    """A weight with two names, and a part that evaluation does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.aux = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.relu(self.first(x)))
        return result


def test_tied_and_unread_tensors_of_a_checkpoint() -> None:
    prepared = fq.prepare_qat(TiedAndUnread(), (torch.randn(2, 4),))
    model = TiedAndUnread()
    fq.qat.load_checkpoint(prepared, model.state_dict())
    assert torch.equal(prepared.get_parameter("second.weight"), model.first.weight)
    assert prepared.get_parameter("second.weight") is prepared.get_parameter("first.weight")
