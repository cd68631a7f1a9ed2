"""Estimates of layers' noise by gradients, against the measurement of each layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import CalibrationError, InputError
from fxquant.mixed.layers import layers_of
from fxquant.mixed.probes import alone, estimated
from fxquant.mixed.simulation import Simulation
from fxquant.quant.spec import PRECISIONS
from tests.mixed.attention_nets import pictures, transformer
from tests.mixed.wide_nets import rows, wide

PRECISE = ("int16x8", "int4_weights", "dynamic")


@pytest.mark.parametrize("name", ["transformer", "wide"])
def test_estimates_are_near_the_measurement(name: str) -> None:
    model, data = (
        (transformer(depth=1), pictures(4)) if name == "transformer" else (wide(), rows(8))
    )
    prepared = fq.calibrate(fq.prepare(model, (data[0][:1],)), data, progress=False)
    tried = PRECISE if name == "wide" else PRECISE[:1]
    exact = fq.sensitivity(prepared, data, precisions=tried)
    guessed = fq.sensitivity(prepared, data, precisions=tried, probes=32)
    assert {row.precision for row in exact} == {"int8", *tried}
    for row, estimate in zip(exact, guessed, strict=True):
        assert (row.nodes, row.precision) == (estimate.nodes, estimate.precision)
        assert estimate.alone == pytest.approx(row.alone, abs=2.0), (row.nodes, row.precision)
        assert math.isnan(estimate.others)
    assert guessed.sqnr == exact.sqnr
    assert "nan" not in guessed.render()


def test_a_linear_net_is_estimated_without_bias() -> None:
    """Of one output there is nothing to guess: v d is the error itself, up to the sign and size
    of v."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1)).eval(), [torch.randn(64, 8)]
    config = fq.QuantConfig(equalize=False, correct_bias=False)
    prepared = fq.calibrate(fq.prepare(model, (data[0][:1],), config), data, progress=False)
    simulation, layers = Simulation(prepared), layers_of(prepared)
    plan = [(layer, layer.precision) for layer in layers]
    measured = alone(simulation, plan, data)
    guessed = torch.tensor([estimated(simulation, plan, data, 64, seed) for seed in range(4)])
    for place, value in enumerate(measured):
        assert float(guessed[:, place].mean()) == pytest.approx(value, rel=0.3)


class Split(nn.Module):
    """A layer of several results, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.lstm(x)
        return self.head(y[:, -1]), torch.sigmoid(y)


def test_several_outputs() -> None:
    torch.manual_seed(0)
    model, data = Split().eval(), [torch.randn(8, 3, 4) for _ in range(3)]
    prepared = fq.calibrate(fq.prepare(model, (data[0][:1],)), data, progress=False)
    exact, guessed = (fq.sensitivity(prepared, data, probes=n) for n in (0, 16))
    pairs = zip(exact, guessed, strict=True)
    apart = [abs(row.alone - other.alone) for row, other in pairs if row.alone < 90]
    assert sum(apart) / len(apart) < 1.0


def test_the_search_with_probes_keeps_the_budget() -> None:
    model, data = transformer(outliers=150, depth=1), pictures(2)
    example = (data[0][:1],)
    _, report = fq.auto_mixed_precision(
        model, example, data, budget=fq.Budget(sqnr=30), held_out=pictures(2, seed=5), probes=8
    )
    assert report.met and report.after.sqnr >= 30
    floats = [row for row in report.rows if row.precision == "float32"]
    assert 0 < len(floats) < len(report.rows) / 2


def test_equal_mixtures_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows(1)
    prepared = fq.calibrate(fq.prepare(wide(), (data[0][:1],)), data, progress=False)
    simulation = Simulation(prepared)
    runs: list[int] = []
    original = Simulation._measure_call

    def counted(self: Simulation, graph: Any, inputs: Any, mixtures: Any, noises: Any) -> None:
        runs.append(len(mixtures))
        original(self, graph, inputs, mixtures, noises)

    monkeypatch.setattr(Simulation, "_measure_call", counted)
    wide16 = {"add": PRECISIONS["int16x8"]}
    first, second, third = simulation.measure([wide16, {}, dict(wide16)], data)
    assert runs == [2] and first is third and first.ratio != second.ratio


def test_bad_input() -> None:
    data = rows(1)
    prepared = fq.calibrate(fq.prepare(wide(), (data[0][:1],)), data, progress=False)
    with pytest.raises(InputError, match="read only once"):
        fq.sensitivity(prepared, iter(data), probes=4)
    with pytest.raises(CalibrationError, match="there are no data"):
        fq.sensitivity(prepared, [], probes=4)
