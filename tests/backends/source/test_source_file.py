"""Two files, both whole or none; errors of what is loaded, and of where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fxquant as fq
from fxquant.backends.lowering.output_file import write_files
from fxquant.errors import InputError, OutputError

EXAMPLE = (torch.randn(1, 3),)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A generated file."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    path = tmp_path / "model.py"
    fq.compile(model, EXAMPLE, backend="source", output=path)
    return path


def test_compile_writes_both_files(written: Path) -> None:
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "model.py",
        "model.safetensors",
    ]


def test_the_files_move_together(written: Path) -> None:
    target = written.parent / "elsewhere"
    target.mkdir()
    for path in list(written.parent.glob("model.*")):
        path.rename(target / f"renamed{path.suffix}")
    assert fq.load_model(target / "renamed.py")(*EXAMPLE).shape == (1, 2)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    lowered = fq.lower(fq.trace(nn.ReLU(), EXAMPLE), "source")
    with pytest.raises(OutputError, match="does not end in .py"):
        lowered.save(tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_the_second_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "model.py").mkdir()
    lowered = fq.lower(fq.trace(nn.Linear(3, 3), EXAMPLE), "source")
    with pytest.raises(OutputError, match="it is a folder"):
        lowered.save(tmp_path / "model.py")
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]


def test_what_stood_there_comes_back(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"old")
    second.mkdir()
    with pytest.raises(OutputError):
        write_files([(first, [b"new"]), (second, [b"new"])])
    assert first.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_string_cannot_hold_two_files() -> None:
    with pytest.raises(OutputError, match="two files"):
        fq.lower(fq.trace(nn.ReLU(), EXAMPLE), "source").to_bytes()


def test_missing_weights(written: Path) -> None:
    written.with_suffix(".safetensors").unlink()
    with pytest.raises(InputError, match="there are no weights"):
        fq.load_model(written)


def test_weights_that_do_not_fit(written: Path) -> None:
    text = written.read_text().replace("nn.Linear(4, 2)", "nn.Linear(4, 3)")
    written.write_text(text)
    with pytest.raises(InputError) as raised:
        fq.load_model(written)
    assert "2.weight is [3, 4], the file has [2, 4]" in str(raised.value)
    assert "2.bias is [3], the file has [2]" in str(raised.value)


def test_members_too_many_and_too_few(written: Path) -> None:
    text = written.read_text().replace("nn.Linear(3, 4), ", "nn.Identity(), ")
    written.write_text(text.replace("nn.ReLU()", "nn.PReLU()"))
    with pytest.raises(InputError) as raised:
        fq.load_model(written)
    assert "1.weight is not in the file" in str(raised.value)
    assert "the model has no 0.weight, the file does" in str(raised.value)


def test_broken_code(written: Path) -> None:
    written.write_text("def load(:\n")
    with pytest.raises(InputError, match="model.py:1 cannot be run: SyntaxError"):
        fq.load_model(written)


def test_no_loader(written: Path) -> None:
    written.write_text("x = 1\n")
    with pytest.raises(InputError, match="has no function `load`"):
        fq.load_model(written)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        fq.load_model(tmp_path / "none.py")


def test_an_edited_file_goes_back_into_the_pipeline(written: Path, tmp_path: Path) -> None:
    written.write_text(written.read_text().replace("nn.ReLU()", "nn.Hardswish()"))
    model = fq.load_model(written)
    calibration = [torch.randn(4, 3) for _ in range(4)]
    lowered = fq.compile(
        model, EXAMPLE, quantize="int8", calibration=calibration, progress=False, verify=False
    )
    assert lowered.report.operators["HARD_SWISH"] == 1
