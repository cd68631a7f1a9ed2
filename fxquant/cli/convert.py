"""`fxquant convert pkg.module:factory --input 1,3,224,224 … -o m.tflite`: from a model to a file.

The options of the command; what it does with them is `conversion.py`. Nothing is written before
everything else has gone well.
"""

from __future__ import annotations

import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fxquant.backends.base import IoDtype, IoLayout, Require
from fxquant.cli import options
from fxquant.cli.calibration_data import open_calibration_data
from fxquant.cli.conversion import Conversion
from fxquant.cli.input_spec import parse_inputs
from fxquant.cli.model_source import load_model
from fxquant.cli.pictures import Preprocessing
from fxquant.errors import InputError, OutputError
from fxquant.passes.instruments import Dump, instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig


class Quantize(StrEnum):
    """What the operators of the file compute in."""

    none = "none"
    int8 = "int8"
    int8w4 = "int8w4"
    uint8 = "uint8"
    int16x8 = "int16x8"
    dynamic = "dynamic"
    dynamic4 = "dynamic4"
    int8_weights = "int8_weights"
    int4_weights = "int4_weights"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Layout(StrEnum):
    """Dimension order of image inputs and outputs."""

    nchw = "nchw"
    nhwc = "nhwc"


class BorderDtype(StrEnum):
    """Dtype of quantized inputs and outputs."""

    float32 = "float32"
    int8 = "int8"
    uint8 = "uint8"
    int16 = "int16"


class Promise(StrEnum):
    """Integers that the file must hold nothing but."""

    int8 = "int8"
    uint8 = "uint8"
    int16x8 = "int16x8"


IO_LAYOUTS: dict[Layout, IoLayout] = {Layout.nchw: "nchw", Layout.nhwc: "nhwc"}
IO_DTYPES: dict[BorderDtype, IoDtype] = {
    BorderDtype.float32: "float32",
    BorderDtype.int8: "int8",
    BorderDtype.uint8: "uint8",
    BorderDtype.int16: "int16",
}
PROMISES: dict[Promise, Require] = {
    Promise.int8: "int8",
    Promise.uint8: "uint8",
    Promise.int16x8: "int16x8",
}


ENDINGS = {".tflite": "tflite", ".onnx": "onnx"}
"""The backend that writes a kind of file."""


def convert(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    inputs: options.Inputs,
    weights: options.Weights = None,
    backend: Annotated[
        str | None, typer.Option(help="The target; that of the file's ending if not given.")
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="Default: int8 with --calibrate, none without.")
    ] = None,
    calibrate: options.Data = None,
    limit: options.Limit = 128,
    mean: options.Mean = "0",
    std: options.Std = "1",
    size: options.Size = None,
    io_layout: Annotated[Layout, typer.Option(help="Of image inputs and outputs.")] = Layout.nchw,
    io_dtype: Annotated[
        BorderDtype | None,
        typer.Option(help="Of quantized inputs and outputs; float32 but for --require."),
    ] = None,
    require: Annotated[
        Promise | None, typer.Option(help="Refuse a file that holds anything but these integers.")
    ] = None,
    config: options.Config = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Passes to run, as text; see `fxquant passes`.")
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Run the file and compare it, operator by operator.")
    ] = True,
    dump: Annotated[Path | None, typer.Option(help="Write every stage of the graph there.")] = None,
) -> None:
    """Convert a PyTorch model to a file that a device can run."""
    check_output(output)
    specs = parse_inputs(inputs)
    preprocessing = Preprocessing(numbers("mean", mean), numbers("std", std), size)
    passes = None if pipeline is None else Pipeline.parse(pipeline)
    if quantize is None and require is not None:
        quantize = Quantize(require.value)
    chosen = _configuration(quantize, calibrate) if config is None else _read(config, calibrate)
    if chosen is not None and require is not None:
        chosen = replace(chosen, integer_only=True)
    data = None
    if calibrate is not None:
        data = open_calibration_data(calibrate, specs, preprocessing, limit)
    target = backend or ENDINGS.get(output.suffix, "tflite")
    conversion = Conversion(load_model(model, weights), specs, data, passes, target)
    conversion.try_model()
    with instruments(*(() if dump is None else (Dump(dump),))):
        core = conversion.float() if chosen is None else conversion.quantized(chosen)
        lowered = conversion.lower(
            core,
            IO_LAYOUTS[io_layout],
            None if io_dtype is None else IO_DTYPES[io_dtype],
            None if require is None else PROMISES[require],
        )
    if verify:
        conversion.verify(lowered)
    conversion.compare(lowered)
    conversion.save(lowered, output)
    Console().print(lowered.report)
    typer.echo(f"wrote {output}")


def _configuration(quantize: Quantize | None, calibrate: Path | None) -> QuantConfig | None:
    """What to quantize to; None where the file stays float."""
    if quantize is None:
        return None if calibrate is None else QuantConfig()
    if quantize is Quantize.none:
        return None
    config = QuantConfig(quantize.value)
    if config.needs_data and calibrate is None:
        fix = "add --calibrate with a folder of pictures or an .npz file like the real inputs"
        raise InputError(f"--quantize {quantize.value} needs calibration data", fix=fix)
    return config


def _read(path: Path, calibrate: Path | None) -> QuantConfig:
    """The configuration in a file.

    Raises:
        InputError: there is no such file, or it asks for integers and there are no data.
    """
    if not path.is_file():
        raise InputError(f"--config {path}: there is no such file")
    config = QuantConfig.from_yaml(path)
    if config.needs_data and calibrate is None:
        fix = "add --calibrate with a folder of pictures or an .npz file like the real inputs"
        raise InputError(f"--config {path} needs calibration data", fix=fix)
    return config


def numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        fix = "write one number, or one for each channel: 0.485,0.456,0.406"
        raise InputError(f"--{name} {text}: not a list of numbers", fix=fix) from None


def check_output(path: Path) -> None:
    """Finds out before the long work, not after it, that the file cannot be written."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder", fix="give the path of the file to write")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist", fix="make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the folder {path.parent} cannot be written", fix="choose another one")
