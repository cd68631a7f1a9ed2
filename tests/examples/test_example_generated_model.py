"""The example writes, edits and quantizes, and the edited int8 file is still good."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples.generated_model import main

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        accuracy = main(tmp_path, epochs=4)
    finally:
        torch.set_num_threads(threads)
    assert accuracy > 0.9
    assert "places edited" in capsys.readouterr().out
    assert "nn.ReLU6()" in (tmp_path / "model.py").read_text()
    assert "fqnn.FloatFunctional()" in (tmp_path / "stubbed.py").read_text()
