"""The benchmarks of training give figures, not only a table."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from benchmarks import qat_accuracy, qat_overhead

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.fixture(autouse=True)
def _threads_as_before() -> object:
    threads = torch.get_num_threads()
    yield None
    torch.set_num_threads(threads)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="no torchvision")
def test_overhead_of_a_small_net(tmp_path: Path) -> None:
    path = tmp_path / "overhead.json"
    options = ["--models", "squeezenet1_0", "--batch", "1", "--size", "64", "--rounds", "1"]
    (row,) = qat_overhead.main([*options, "--json", str(path)])
    assert row.float_step > 0 and 0.5 < row.ratio < 20
    assert json.loads(path.read_text())[0]["ratio"] == row.ratio


def test_training_with_four_bits() -> None:
    options = ["--nets", "mobile_digits", "--bits", "4", "--epochs", "4", "--scales", "channel"]
    (row,) = qat_accuracy.main([*options, "--limit", "150", "--seeds", "1"])
    assert row.top1[0] > 0.96 and row.calibrated.top1 > 0.5
    assert row.trained[0].agreement > 0.98
