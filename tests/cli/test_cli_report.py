"""`fxquant report`: the table on the terminal, the page in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_cli_commands import output

GIVEN = ("report", "tests.cli.sample_models:Net", "--input", "1,3,8,8", "--calibrate")


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "data.npy"
    np.save(path, np.random.RandomState(0).randn(8, 3, 8, 8).astype(np.float32))
    return str(path)


def test_table_and_page(capsys: pytest.CaptureFixture[str], data: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, out, _ = output(capsys, *GIVEN, data, "-o", str(page))
    assert code == 0
    assert "conv2d relu" in out
    assert "2 samples" in out  # of 8, a quarter is measured on
    assert f"wrote {page}" in out.replace("\n", "")
    assert "tests.cli.sample_models:Net" in page.read_text(encoding="utf-8")


def test_a_config_and_an_order(
    capsys: pytest.CaptureFixture[str], data: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("keep_float: [conv]\n")
    code, out, _ = output(capsys, *GIVEN, data, "--config", str(config), "--sort", "alone")
    assert code == 0
    assert "float32" in out


def test_a_page_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], data: str, tmp_path: Path
) -> None:
    code, _, err = output(capsys, *GIVEN, data, "-o", str(tmp_path / "missing" / "r.html"))
    assert code == 2
    assert "does not exist" in err


@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_the_last_graph_of_a_backend(
    capsys: pytest.CaptureFixture[str], data: str, backend: str
) -> None:
    pytest.importorskip("onnx" if backend == "onnx" else "flatbuffers")
    code, out, _ = output(capsys, *GIVEN, data, "--lowered", backend)
    assert code == 0
    assert f"2 samples in the {backend} dialect" in out
    assert "conv2d relu" in out


def test_a_backend_that_does_not_exist(capsys: pytest.CaptureFixture[str], data: str) -> None:
    code, _, err = output(capsys, *GIVEN, data, "--lowered", "tflight")
    assert code == 2
    assert "tflight" in err and "tflite" in err
