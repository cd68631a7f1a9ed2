"""An LSTM in float, dynamic range and int8 files is as good as in torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import lstm

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lstm, "data_dir", lambda: None)  # the small pictures
    variants = ("float", "float, unrolled", "dynamic", "int8")
    found = lstm.main(tmp_path, limit=100, epochs=10, variants=variants)
    assert found["float"] == found["float, unrolled"] > 0.85
    assert all(abs(accuracy - found["float"]) < 0.05 for accuracy in found.values())
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.tflite"))]
    assert sizes[0] > sizes[3], "int8 is smaller"
    assert "digits read row by row" in capsys.readouterr().out
