"""`fxquant convert` from end to end, and what it says when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fxquant.backends.tflite.inspection import inspect_file
from fxquant.cli.conversion import error_figures
from fxquant.cli.main import main
from tests.cli.sample_models import make

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

MODELS = "tests.cli.sample_models"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("convert", …)` runs the command line."""

    def run(*arguments: str | Path) -> Ended:
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Twelve calibration inputs of `Net`."""
    path = tmp_path / "samples.npz"
    x = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    np.savez(path, x=x)
    return path


def test_float_file(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "m.tflite"
    ended = command("convert", f"{MODELS}:make", "--input", "1,3,8,8", "-o", output)
    assert ended.code == 0, ended.err
    assert f"wrote {output}" in ended.out
    assert "SQNR against torch" in ended.out
    assert inspect_file(output).operators["CONV_2D"] == 1


def test_int8_file_with_weights(command: Command, tmp_path: Path, samples: Path) -> None:
    weights, output = tmp_path / "w.pt", tmp_path / "m.tflite"
    torch.save(make().state_dict(), weights)
    ended = command(
        *("convert", f"{MODELS}:Net", "--weights", weights, "--input", "1,3,8,8"),
        *("--calibrate", samples, "--quantize", "int8", "-o", output),
    )
    assert ended.code == 0, ended.err
    summary = inspect_file(output)
    assert summary.operators["CONV_2D"] == 1
    assert next(iter(summary.inputs.values())).dtype == "float32"
    assert summary.borders.dequantize == 1


def test_borders_of_the_file(command: Command, tmp_path: Path, samples: Path) -> None:
    output = tmp_path / "m.tflite"
    ended = command(
        *("convert", f"{MODELS}:make", "--input", "1,3,8,8", "--calibrate", samples, "-o", output),
        *("--io-layout", "nhwc", "--io-dtype", "int8"),
    )
    assert ended.code == 0, ended.err
    (entry,) = inspect_file(output).inputs.values()
    assert (entry.dtype, entry.shape) == ("int8", (1, 8, 8, 3))
    assert inspect_file(output).floats == ()


def test_named_inputs(command: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", b=np.ones((4, 6), np.float32), a=np.ones((4, 4), np.float32))
    output = tmp_path / "m.tflite"
    ended = command(
        *("convert", f"{MODELS}:TwoInputs", "--input", "b=1,6", "--input", "a=1,4"),
        *("--calibrate", tmp_path / "d.npz", "-o", output),
    )
    assert ended.code == 0, ended.err
    assert set(inspect_file(output).inputs) == {"a", "b"}


def test_dump_and_pipeline(command: Command, tmp_path: Path) -> None:
    ended = command(
        *("convert", f"{MODELS}:make", "--input", "1,3,8,8", "-o", tmp_path / "m.tflite"),
        *("--pipeline", "functionalize,fuse-conv-bn,dead-code", "--dump", tmp_path / "dump"),
    )
    assert ended.code == 0, ended.err
    names = [path.name for path in sorted((tmp_path / "dump").glob("*.txt"))]
    assert names[0] == "000-input.txt"
    assert "002-fuse-conv-bn.txt" in names


def test_every_unsupported_operator_is_listed(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "m.tflite"
    output.write_bytes(b"what stood here before")
    ended = command("convert", f"{MODELS}:Unsupported", "--input", "1,4", "-o", output)
    assert ended.code == 2
    assert ended.err.count("sample_models.py:") == 3
    assert "Traceback" not in ended.err
    assert output.read_bytes() == b"what stood here before"
    assert list(tmp_path.iterdir()) == [output]


def test_values_that_are_not_numbers(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.full((4, 3, 8, 8), np.nan, np.float32))
    ended = command(
        *("convert", f"{MODELS}:make", "--input", "1,3,8,8", "--calibrate", tmp_path / "d.npy"),
        *("-o", tmp_path / "m.tflite"),
    )
    assert ended.code == 2
    assert ended.err.splitlines()[-1:] != []
    assert "NaN" in ended.err
    assert not (tmp_path / "m.tflite").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--input", "1,4,8,8"], "calling the model with --input 1,4,8,8 failed: RuntimeError"),
        (["--input", "1,3,x"], "InputError: --input 1,3,x"),
        (["--input", "1,3,8,8", "--quantize", "int8"], "--quantize int8 needs calibration data"),
        (["--input", "1,3,8,8", "--calibrate", "nowhere"], "CalibrationError: there is no"),
        (["--input", "1,3,8,8", "--weights", "nowhere.pt"], "InputError: there is no file"),
        (["--input", "1,3,8,8", "--pipeline", "nothing"], "PipelineError: there is no pass"),
        (["--input", "1,3,8,8", "--mean", "a"], "InputError: --mean a: not a list of numbers"),
        (["--input", "1,3,8,8", "--limit", "0"], "--limit"),
        ([], "--input"),
    ],
)
def test_mistakes_end_with_two_and_without_a_file(
    command: Command, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    ended = command("convert", f"{MODELS}:make", *arguments, "-o", tmp_path / "m.tflite")
    assert ended.code == 2
    assert reason in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "reason"),
    [("", "is a folder"), ("missing/m.tflite", "does not exist")],
)
def test_output_that_cannot_be_written(
    command: Command, tmp_path: Path, output: str, reason: str
) -> None:
    ended = command("convert", f"{MODELS}:make", "--input", "1,3,8,8", "-o", tmp_path / output)
    assert ended.code == 2
    assert f"OutputError: {'the folder' if output else tmp_path}" in ended.err
    assert reason in ended.err


def test_inspect_lists_what_is_asked_for(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "m.tflite"
    assert command("convert", f"{MODELS}:make", "--input", "1,3,8,8", "-o", output).code == 0
    plain, full = command("inspect", output), command("inspect", output, "--operators", "--tensors")
    assert (plain.code, full.code) == (0, 0)
    assert "CONV_2D" in plain.out
    assert "stride_h=1" in full.out


def test_inspect_of_what_is_no_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"this is not one")
    assert "FormatError" in command("inspect", tmp_path / "m.tflite").err
    assert command("inspect", tmp_path / "missing").code == 2


def test_error_figures_of_equal_values() -> None:
    figures = error_figures(torch.ones(3), torch.ones(3))
    assert figures["SQNR against torch, dB"] == float("inf")


@pytest.mark.parametrize(("require", "dtype"), [("int8", "int8"), ("int16x8", "int16")])
def test_a_file_of_integers_only(
    command: Command, samples: Path, tmp_path: Path, require: str, dtype: str
) -> None:
    output = tmp_path / "m.tflite"
    options = ("--input", "1,3,8,8", "--calibrate", samples, "--require", require, "-o", output)
    ended = command("convert", f"{MODELS}:make", *options)
    assert ended.code == 0, ended.err
    summary = inspect_file(output)
    assert not summary.floats
    assert {each.dtype for each in (*summary.inputs.values(), *summary.outputs.values())} == {dtype}


def test_a_promise_needs_calibration_data(command: Command, tmp_path: Path) -> None:
    options = ("--input", "1,3,8,8", "--require", "int8", "-o", tmp_path / "m.tflite")
    ended = command("convert", f"{MODELS}:make", *options)
    assert ended.code and "--quantize int8 needs calibration data" in ended.err


def test_a_configuration_is_written_edited_and_read(
    command: Command, samples: Path, tmp_path: Path
) -> None:
    config, output = tmp_path / "q.yaml", tmp_path / "m.tflite"
    model = (f"{MODELS}:Net", "--input", "1,3,8,8")
    assert command("config", *model, "-o", config).code == 0
    assert "conv: int8" in config.read_text()
    config.write_text(config.read_text().replace("head: int8", "head: float32"))
    arguments = ("convert", *model, "--config", config, "-o", output)
    assert "needs calibration data" in command(*arguments).err
    ended = command(*arguments, "--calibrate", samples)
    assert ended.code == 0
    assert "node=head" in ended.out
    assert output.exists()
    missing = tmp_path / "no.yaml"
    ended = command("convert", *model, "--config", missing, "-o", output)
    assert ended.code == 2 and "there is no such file" in ended.err


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_the_ending_of_the_file_names_the_target(
    command: Command, tmp_path: Path, samples: Path, quantize: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    output = tmp_path / "m.onnx"
    options = ["--input", "1,3,8,8", "--calibrate", samples, "--quantize", quantize]
    ended = command("convert", f"{MODELS}:Net", *options, "-o", output)
    assert ended.code == 0, ended.err
    session = onnxruntime.InferenceSession(output)
    assert [each.shape for each in session.get_inputs()] == [[1, 3, 8, 8]]


def test_a_target_that_there_is_not(command: Command, tmp_path: Path) -> None:
    options = ["--input", "1,3,8,8", "--backend", "nowhere", "-o", tmp_path / "m.bin"]
    ended = command("convert", f"{MODELS}:Net", *options)
    assert ended.code == 2 and "there is no backend 'nowhere'" in ended.err
