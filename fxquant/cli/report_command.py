"""`fxquant report pkg:factory --input 1,3,224,224 --calibrate images/ -o r.html`: what is lost.

The model is quantized as `fxquant convert` does, and every layer's error against the float model is
printed and, with `-o`, written as a page; with `--lowered tflite` of the graph in that backend's
dialect, with its arithmetic. The last quarter of the data is kept from calibration:
errors are measured on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch.fx import GraphModule

import fxquant
from fxquant.cli import options
from fxquant.cli.calibration_data import CalibrationData, open_calibration_data
from fxquant.cli.convert import check_output, numbers
from fxquant.cli.input_spec import parse_inputs
from fxquant.cli.model_source import load_model
from fxquant.cli.pictures import Preprocessing
from fxquant.cli.stages import Stages
from fxquant.quant.config import QuantConfig
from fxquant.quant.error_report.report import ErrorReport

MEASURED = 4
"""One sample in so many is kept to measure on."""


WIDTH = 160
"""Columns of the table where the terminal has fewer: rows stay one line each."""


class Order(StrEnum):
    """Ways to sort the table."""

    graph = "graph"
    alone = "alone"
    cumulative = "cumulative"
    clipped = "clipped"
    share = "share"


class _Part(Sequence[Any]):
    """Some of the samples, as what a model is called with."""

    def __init__(self, data: CalibrationData, places: range) -> None:
        self.data, self.places = data, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        call = self.data.call(self.places[place])
        return call.kwargs or call.args

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))


def report(
    model: options.Model,
    inputs: options.Inputs,
    calibrate: Annotated[
        Path, typer.Option(help="Folder of pictures, or .npz, .npy, .safetensors.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report there as HTML.")
    ] = None,
    weights: options.Weights = None,
    config: options.Config = None,
    limit: options.Limit = 128,
    mean: options.Mean = "0",
    std: options.Std = "1",
    size: options.Size = None,
    lowered: Annotated[
        str | None,
        typer.Option(help="Measure the last graph of this backend, e.g. tflite, instead."),
    ] = None,
    sort: Annotated[Order, typer.Option(help="Order of the rows.")] = Order.graph,
) -> None:
    """Show each layer's error under quantization, and where to look first."""
    if output is not None:
        check_output(output)
    specs = parse_inputs(inputs)
    preprocessing = Preprocessing(numbers("mean", mean), numbers("std", std), size)
    data = open_calibration_data(calibrate, specs, preprocessing, limit)
    settings = QuantConfig() if config is None else QuantConfig.from_yaml(config)
    count = len(data)
    kept = count - max(1, count // MEASURED) if count > 1 else 1
    first, stages = data.call(0), Stages()
    with stages.stage("prepare"):
        prepared = fxquant.prepare(
            load_model(model, weights),
            first.args,
            settings,
            kwargs=first.kwargs or None,
            backend=lowered or "tflite",
        )
    with stages.stage("calibrate", own_progress=True):
        fxquant.calibrate(prepared, _Part(data, range(kept)))
    with stages.stage("measure", own_progress=True):
        measured = range(kept, count) if count > 1 else range(1)
        found = _measured(prepared, _Part(data, measured), lowered)
    if sort is not Order.graph:
        found.rows = found.sorted(sort.value)
    typer.echo(found.render(max(WIDTH, Console().width)))
    if output is not None:
        found.save_html(output, title=model)
        typer.echo(f"wrote {output}")


def _measured(prepared: GraphModule, data: _Part, lowered: str | None) -> ErrorReport:
    """The errors in the core dialect, or in a backend's own."""
    if lowered is None:
        return fxquant.error_report(prepared, data)
    quantized = fxquant.convert(prepared)
    return fxquant.error_report(fxquant.lower(quantized, lowered), data, reference=quantized)
