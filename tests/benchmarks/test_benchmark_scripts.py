"""The benchmarks run on a small net and give figures, not only a table."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from benchmarks import accuracy, integer_precisions, precisions, source, speed, zoo
from benchmarks.execution import agreement, centered_sqnr, sqnr
from tests.support.data import missing_reason

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
if importlib.util.find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)


def test_zoo_of_one_net(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    options = ["--models", "squeezenet1_0", "--calibration", "2", "--test", "1"]
    rows = zoo.main([*options, "--json", str(path)])
    assert [(row.precision, row.failure) for row in rows] == [("float", ""), ("int8", "")]
    assert rows[0].relative_error < 1e-4
    assert rows[1].output_agreement >= 0.99
    assert [row.moves["TRANSPOSE"] for row in rows] == [0, 0]
    assert len(json.loads(path.read_text())) == 2


def test_a_net_that_fails_gets_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("out of luck")

    monkeypatch.setattr(zoo, "core_graph", fail)
    (row,) = zoo.main(["--models", "alexnet", "--precisions", "float"])
    assert row.failure == "ValueError: out of luck"


@pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason()))
def test_accuracy_of_the_smallest_net() -> None:
    (row,) = accuracy.main(["--models", "cifar_resnet20"])
    assert row.evaluated == 236
    assert row.agreement >= 0.98


@pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason()))
def test_integer_precisions_of_the_smallest_net() -> None:
    rows = integer_precisions.main(["--models", "cifar_resnet20", "--evaluate", "8"])
    assert [row.equal_to_simulation for row in rows] == [1.0] * 4
    figures = {row.precision: row.sqnr_db for row in rows}
    assert figures["int16x8"] > 38 > figures["int8"] > 28 and figures["uint8"] > 27


def test_accuracy_without_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FXQUANT_DATA", str(tmp_path))
    assert accuracy.main([]) == []
    assert "set FXQUANT_DATA" in capsys.readouterr().out


def test_speed_of_a_small_net() -> None:
    threads = torch.get_num_threads()
    try:
        found = speed.main(["--model", "squeezenet1_0", "--rounds", "1"])
    finally:
        torch.set_num_threads(threads)
    assert found.relative > 0
    assert found.stages["trace"] > 0


def test_figures() -> None:
    wanted, found = torch.tensor([[3.0, 4.0], [1.0, 4.0]]), torch.tensor([[3.0, 4.5], [1.0, 4.0]])
    assert sqnr(wanted, wanted) == float("inf")
    assert sqnr(wanted, found) == pytest.approx(22.25, abs=0.01)
    assert centered_sqnr(wanted, found) == pytest.approx(9.03, abs=0.01)
    assert agreement(wanted, wanted.flip(1)) == 0.0


@pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason()))
def test_precisions_of_the_smallest_net() -> None:
    threads = torch.get_num_threads()
    options = ["--models", "cifar_resnet20", "--limit", "8", "--precisions", "float32", "dynamic"]
    try:
        plain, dynamic = precisions.main(options)
    finally:
        torch.set_num_threads(threads)
    assert dynamic.size < plain.size / 3
    assert dynamic.agreement == dynamic.simulation == 1.0
    assert dynamic.sqnr_db > 25


def test_every_stage_of_a_generated_model() -> None:
    rows = source.main(["--models", "cnn,lstm"])
    assert len(rows) == 2 * len(source.STAGES)
    assert [f"{row.model} {row.stage}: {row.failure}" for row in rows if not row.ok] == []
    assert {row.stage for row in rows if row.strict} == {"traced", "stubbed"}
