"""The trainings of the examples end in files that are about as good as the float nets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples import qat
from tests.project.source_tree import ROOT

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_training_on_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FXQUANT_DATA", str(tmp_path))
    threads = torch.get_num_threads()
    try:
        found = qat.main([str(tmp_path), "--epochs", "1", "--bits", "4", "--learned", "lsq"])
    finally:
        torch.set_num_threads(threads)
    assert found["trained, LiteRT"] > 0.95
    assert abs(found["trained, LiteRT"] - found["trained, simulated"]) < 0.01
    assert (tmp_path / "digits.int4.qat.tflite").stat().st_size > 1000
    assert "calibrated, LiteRT" in capsys.readouterr().out


def test_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.ddp_qat", str(tmp_path), "--epochs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "scales that differ between ranks: 0\n" in done.stdout
    accuracy = float(done.stdout.split("in LiteRT: ")[1].split("%")[0])
    assert accuracy > 94
