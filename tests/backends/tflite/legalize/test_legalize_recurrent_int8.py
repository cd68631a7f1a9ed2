"""An int8 LSTM as one operator: the same bytes in LiteRT, nearer to the model than steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.quant.config import Rule

STEPS, BATCH, INPUTS, HIDDEN = 4, 2, 4, 5
NAME = "UNIDIRECTIONAL_SEQUENCE_LSTM"


class Tagger(nn.Module):
    """An LSTM and a head on all steps, on the last one, or on the last states."""

    def __init__(self, read: str = "all", **options: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.LSTM(INPUTS, HIDDEN, **options)
        self.head = nn.Linear(HIDDEN * (1 + self.layer.bidirectional), 3)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        y, (h, _) = self.layer(x)
        if self.read == "last":
            y = y[:, -1] if self.layer.batch_first else y[-1]
        if self.read == "state":
            y = torch.cat(list(h[-1 - self.layer.bidirectional :]), -1)
        result: Tensor = self.head(y)
        return result


def samples(model: Tagger, count: int = 12) -> list[tuple[Tensor]]:
    size = (BATCH, STEPS, INPUTS) if model.layer.batch_first else (STEPS, BATCH, INPUTS)
    return [(torch.randn(size),) for _ in range(count)]


def compiled(model: Tagger, data: list[Any], config: fq.QuantConfig | None = None) -> Lowered:
    settings = config or fq.QuantConfig()
    return fq.compile(model, data[0], quantize=settings, calibration=data, progress=False)


@torch.no_grad()
def noise(model: Tagger, lowered: Lowered, data: list[Any]) -> float:
    """Signal to noise in dB, the last graph against the float model."""
    wanted = torch.cat([model(*x).reshape(-1) for x in data])
    found = torch.cat([lowered.graph_module(*x).reshape(-1) for x in data])
    return 20 * float((wanted.norm() / (found - wanted).norm()).log10())


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "all steps": ("all", {"batch_first": True}),
    "last step": ("last", {"batch_first": True}),
    "last state": ("state", {"batch_first": True}),
    "time first": ("all", {}),
    "two layers": ("last", {"num_layers": 2}),
    "both directions": ("last", {"bidirectional": True, "batch_first": True}),
    "both states": ("state", {"bidirectional": True}),
    "without bias": ("all", {"bias": False, "num_layers": 2, "bidirectional": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layer(name: str) -> None:
    """One operator a layer and direction, all integers, the graph's bytes, and near the model."""
    read, options = CASES[name]
    model = Tagger(read, **options).eval()
    data = samples(model)
    lowered = compiled(model, data)
    count = model.layer.num_layers * (1 + model.layer.bidirectional)
    assert lowered.report.operators[NAME] == count
    assert sum(lowered.report.operators.values()) < 14 * count
    assert noise(model, lowered, data) > 38
    for kernels in ("reference", "xnnpack"):
        fq.verify(lowered, data[:2], kernels=kernels).check()


def test_a_file_of_integers_alone() -> None:
    """The promise of int8 allows the 16 bits that the kernel keeps."""
    model = Tagger("last", batch_first=True, bidirectional=True).eval()
    data = samples(model)
    lowered = fq.compile(model, data[0], require="int8", calibration=data, progress=False)
    assert lowered.report.operators[NAME] == 2
    probes = [(torch.randint(-128, 128, x.shape, dtype=torch.int8),) for (x,) in data[:3]]
    fq.verify(lowered, probes, kernels="optimized").check()


def test_it_is_nearer_to_the_model_than_steps_are() -> None:
    model = Tagger(batch_first=True).eval()
    data = samples(model)
    whole = noise(model, compiled(model, data), data)
    steps = noise(model, compiled(model, data, fq.QuantConfig(recurrent="unrolled")), data)
    assert whole > steps + 2


def test_one_scale_for_all_gates() -> None:
    model = Tagger(batch_first=True).eval()
    data = samples(model)
    lowered = compiled(model, data, fq.QuantConfig(per_channel=False))
    assert lowered.report.operators[NAME] == 1
    assert noise(model, lowered, data) > 38


class Stream(nn.Module):
    """An LSTM that takes its states, or gives its last cell state."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUTS, HIDDEN, batch_first=True, **options)

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        y, (_, c) = self.lstm(x, states or None)
        result: Tensor = y if states else c
        return result


STATES = (torch.randn(1, 1, HIDDEN), torch.randn(1, 1, HIDDEN))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("model", "states", "why"),
    [
        (Stream(), STATES, "its states are inputs"),
        (Stream(), (), "its last cell state is read"),
        (Stream(proj_size=3), (torch.randn(1, 1, 3), STATES[1]), "its outputs are projected"),
    ],
    ids=["states", "cell state", "projection"],
)
def test_what_the_operator_cannot_do_is_unrolled_and_said(
    model: nn.Module, states: tuple[Tensor, ...], why: str
) -> None:
    data = [(torch.randn(1, STEPS, INPUTS), *states) for _ in range(8)]
    lowered = fq.compile(model.eval(), data[0], quantize="int8", calibration=data, progress=False)
    assert NAME not in lowered.report.operators
    assert f"%lstm: lstm is written step by step, as {why}" in lowered.report.notes
    fq.verify(lowered, data[:2], kernels="reference").check()


def test_a_rule_for_a_part_takes_the_layer_apart() -> None:
    model = Tagger(batch_first=True).eval()
    data = samples(model)
    wide = Rule(precision="int16x8", callable="fxquant.passes.recurrent.cells:holds_cell_state")
    lowered = compiled(model, data, fq.QuantConfig(rules=(wide,)))
    assert NAME not in lowered.report.operators
    fq.verify(lowered, data[:2], kernels="reference").check()


@pytest.mark.parametrize("learned", [None, "lsq"])
def test_training(learned: str | None) -> None:
    """What was trained is what the file computes, one weight for all steps."""
    torch.manual_seed(0)
    model = Tagger("last", batch_first=True, num_layers=2).train()
    data = samples(model)
    prepared = fq.prepare_qat(model, data[0], fq.QuantConfig(learned=learned))
    optimizer = torch.optim.Adam(prepared.parameters(), 0.01)
    before = prepared.get_parameter("layer.weight_hh_l0").detach().clone()
    losses = []
    for _ in range(6):
        for (x,) in data:
            loss = (prepared(x) - x.mean((1, 2)).unsqueeze(-1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-8:]) < 0.5 * sum(losses[:8])
    assert not torch.equal(before, prepared.get_parameter("layer.weight_hh_l0"))
    prepared.eval()
    frozen = fq.convert(prepared)
    (x,) = data[0]
    with torch.no_grad():
        assert torch.equal(frozen(x), prepared(x))
    names = [name for name, _ in frozen.named_parameters() if "weight_hh" in name]
    assert names == ["layer.weight_hh_l0", "layer.weight_hh_l1"]
    lowered = fq.lower(frozen, "tflite")
    assert lowered.report.operators[NAME] == 2
    fq.verify(lowered, data[:3]).check()
    step = lowered.graph_module.graph.find_nodes(op="output")[0].all_input_nodes[0]
    scale = step.all_input_nodes[0].meta["type"].quantization.scale[0]
    with torch.no_grad():
        torch.testing.assert_close(lowered.graph_module(x), frozen(x), rtol=0, atol=1.01 * scale)
