"""`fxquant source`: every stage as a file that goes back into `fxquant convert`."""

from __future__ import annotations

from pathlib import Path

import pytest

import fxquant as fq
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
    assert "# int8 fused into relu" in text
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
