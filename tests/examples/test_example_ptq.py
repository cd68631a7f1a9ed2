"""Variants of post-training quantization are nearly as good as the float net."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import ptq

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ptq.main(tmp_path, limit=50, variants=("minmax", "last layer in float"))
    assert len(found) == 2
    assert min(found.values()) > 0.85
    assert len(list(tmp_path.glob("*.tflite"))) == len(found)
    assert "last layer in float" in capsys.readouterr().out
