"""`fxquant source`: every stage as a file that goes back into `fxquant convert`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fxquant as fq
from fxquant.quant.fake_quantize import FakeQuantize
from tests.cli.test_cli_commands import output

NET = ("tests.cli.sample_models:Net", "--input", "1,3,8,8")


@pytest.mark.parametrize("stage", ["traced", "stubbed", "core", "annotated", "prepared"])
def test_stages(stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.py"
    code, out, error = output(capsys, "source", *NET, "--stage", stage, "-o", str(path))
    assert (code, out.split()[0]) == (0, "wrote"), error
    assert fq.load_model(path).training is False


def test_annotated_lines_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    rule = fq.Rule(op="linear", precision="float32")
    config.write_text(fq.QuantConfig(rules=(rule,)).to_yaml())
    path = tmp_path / "model.py"
    options = ("--stage", "annotated", "--config", str(config), "-o", str(path))
    code, _, error = output(capsys, "source", *NET, *options)
    assert code == 0, error
    text = path.read_text()
    assert "# int8, one with the relu behind it" in text
    assert "# float32: rule" in text


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.py"
    assert output(capsys, "source", *NET, "-o", str(path))[0] == 0
    given = (f"{path}:load", "--input", "1,3,8,8", "--no-verify", "-o", str(tmp_path / "m.tflite"))
    code, _, error = output(capsys, "convert", *given)
    assert code == 0, error
    assert (tmp_path / "m.tflite").stat().st_size > 0


def test_another_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = output(capsys, "source", *NET, "-o", str(tmp_path / "model.txt"))
    assert code == 2
    assert "does not end in .py" in error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Arrays to calibrate on."""
    path = tmp_path / "pictures.npy"
    np.save(path, np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32))
    return path


@pytest.mark.parametrize("stage", ["prepared", "frozen"])
def test_stages_that_see_data(
    stage: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.py"
    options = ("--stage", stage, "--calibrate", str(pictures), "-o", str(path))
    code, _, error = output(capsys, "source", *NET, *options)
    assert code == 0, error
    made = fq.load_model(path)
    scales = [float(m.scale.max()) for m in made.modules() if isinstance(m, FakeQuantize)]
    assert ("fake_quantize_per_tensor_affine" in path.read_text()) == (stage == "frozen")
    assert (1.0 not in scales and len(scales) > 3) == (stage == "prepared")


def test_a_frozen_file_is_an_integer_file(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "model.py"
    options = ("--stage", "frozen", "--calibrate", str(pictures), "-o", str(path))
    assert output(capsys, "source", *NET, *options)[0] == 0
    given = (f"{path}:load", "--input", "1,3,8,8", "-o", str(tmp_path / "m.tflite"))
    code, _, error = output(capsys, "convert", *given)
    assert code == 0, error
    lowered = fq.lower(fq.trace(fq.load_model(path), (torch.randn(1, 3, 8, 8),)), "tflite")
    operators = lowered.report.operators
    assert (operators["QUANTIZE"], operators["DEQUANTIZE"]) == (1, 1)


def test_without_data_where_none_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--stage", "frozen", "--quantize", "dynamic", "-o", str(tmp_path / "model.py"))
    code, _, error = output(capsys, "source", *NET, *options)
    assert code == 0, error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stage", "frozen"), "--stage frozen needs calibration data"),
        (("--calibrate", "x.npy"), "--stage traced has no ranges, --calibrate does nothing"),
        (("--quantize", "int8"), "--stage traced is in float, --quantize does nothing there"),
        (("--stage", "annotated", "--config", "x.yaml"), "--config x.yaml: there is no such file"),
        (("--stage", "annotated", "--config", "x", "--quantize", "int8"), "both say what"),
    ],
)
def test_options_that_do_not_fit(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = output(capsys, "source", *NET, *options, "-o", str(tmp_path / "model.py"))
    assert code == 2
    assert message in " ".join(error.split())
    assert list(tmp_path.iterdir()) == []
