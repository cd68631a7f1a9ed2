"""Mixed precision rescues the transformer that int8 alone ruins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples import mixed

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        found = mixed.main(tmp_path, epochs=2, target=25.0, pictures=50)
    finally:
        torch.set_num_threads(threads)
    assert found["mixed"].sqnr > found["int8"].sqnr + 10
    assert found["mixed"].sqnr > 20
    assert found["mixed"].size < found["float32"].size
    assert (tmp_path / "mixed.yaml").read_text().count("float32") > 2
    assert "mixed precision: budget kept" in capsys.readouterr().out
