"""The examples of precisions that need no calibration, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import bf16, dynamic

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_dynamic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dynamic.main(tmp_path, limit=50, precisions=("dynamic", "dynamic4"))
    for accuracies in found.values():
        assert accuracies["dynamic"] >= accuracies["float32"] - 0.02
        assert accuracies["dynamic4"] > 0.8
    sizes = {path.name.split(".", 1)[1]: path.stat().st_size for path in tmp_path.glob("words*")}
    assert sizes["dynamic4.tflite"] < sizes["dynamic.tflite"] < sizes["float32.tflite"] / 2
    assert "agrees with float" in capsys.readouterr().out


def test_bf16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bf16.main(tmp_path, limit=50, epochs=3)
    for accuracies in found.values():
        assert min(accuracies.values()) > 0.85
        assert accuracies["bfloat16 storage"] == accuracies["float32 storage"]
    assert len(list(tmp_path.glob("*.tflite"))) == 2 * len(bf16.FILES)
    assert "bfloat16 simulated" in capsys.readouterr().out
