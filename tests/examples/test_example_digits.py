"""The demo runs, and its int8 file is as good as the float model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples.digits import main

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        accuracy = main(tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert accuracy > 0.97
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"digits.float.tflite", "digits.int8.tflite"}
    assert sizes["digits.int8.tflite"] < sizes["digits.float.tflite"] / 2
