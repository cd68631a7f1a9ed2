"""The benchmark of calibration runs on a small net and gives figures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks import calibration

if importlib.util.find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)


def test_costs_are_in_forward_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FIRST": 16, "BATCHES": 4, "WINDOW": 2}.items():
        monkeypatch.setattr(calibration, name, value)
    path = tmp_path / "calibration.json"
    options = ["--models", "squeezenet1_0", "--observers", "minmax", "--rounds", "1"]
    (cost,) = calibration.main([*options, "--no-memory", "--json", str(path)])
    # A calibration runs the net, so it costs a forward pass; the machine may be busy with others.
    assert 0.3 < cost.each < 20
    assert cost.total() == pytest.approx(cost.each + cost.fixed / 256)
    assert json.loads(path.read_text())[0]["observer"] == "minmax"
    assert "squeezenet1_0" in capsys.readouterr().out
