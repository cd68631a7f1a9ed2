"""`fxquant source pkg:factory --input 1,3,224,224 --stage stubbed -o model.py`: the model as code.

    traced      as the model is
    stubbed     with stubs, modules for every function that has a range, and a list of fusions
    core        the dialect of the passes, norms folded
    annotated   that, and behind each line the precision and why
    prepared    that, with a FakeQuantize for each quantized value; calibrated, with --calibrate
    frozen      that, every scale a constant; needs --calibrate where grids need data

The file is run and compared with the graph, bit for bit, before it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from torch import nn
from torch.fx import GraphModule

from fxquant.api import convert, lower, prepare
from fxquant.api import verify as compare
from fxquant.cli import options
from fxquant.cli.calibration_data import CalibrationData, open_calibration_data
from fxquant.cli.convert import Quantize, check_output, numbers
from fxquant.cli.input_spec import Call, parse_inputs, random_call
from fxquant.cli.model_source import load_model
from fxquant.cli.pictures import Preprocessing
from fxquant.errors import InputError
from fxquant.passes.pipeline import Pipeline
from fxquant.quant import calibration
from fxquant.quant.config import QuantConfig
from fxquant.tracing import trace


class Stage(StrEnum):
    """The stage whose graph is written."""

    traced = "traced"
    stubbed = "stubbed"
    core = "core"
    annotated = "annotated"
    prepared = "prepared"
    frozen = "frozen"


FLOAT = frozenset({Stage.traced, Stage.stubbed, Stage.core})
DATA = frozenset({Stage.prepared, Stage.frozen})
UNOBSERVED: Mapping[Stage, tuple[str, ...]] = {
    Stage.annotated: ("insert-stubs", "insert-observers")
}


def source(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .py file to write.")],
    inputs: options.Inputs,
    stage: Annotated[Stage, typer.Option(help="What to write.")] = Stage.traced,
    weights: options.Weights = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="Precision from annotated on; int8 by default.")
    ] = None,
    config: options.Config = None,
    calibrate: options.Data = None,
    limit: options.Limit = 128,
    mean: options.Mean = "0",
    std: options.Std = "1",
    size: options.Size = None,
    target: Annotated[str, typer.Option(help="The backend whose constraints decide.")] = "tflite",
) -> None:
    """Write a model as a readable Python file, its weights beside it."""
    check_output(output)
    specs = parse_inputs(inputs)
    choices = _choices(stage, quantize, config, calibrate)
    data = None
    if calibrate is not None:
        preprocessing = Preprocessing(numbers("mean", mean), numbers("std", std), size)
        data = open_calibration_data(calibrate, specs, preprocessing, limit)
    call = random_call(specs)
    graph = _graph(load_model(model, weights), call, stage, choices, data, target)
    own = {"stage": "stubbed", "target": target} if stage is Stage.stubbed else {}
    lowered = lower(graph, "source", options=own)
    compare(lowered, [call.kwargs or call.args]).check()
    typer.echo(f"wrote {lowered.save(output)}")


def _choices(
    stage: Stage, quantize: Quantize | None, config: Path | None, calibrate: Path | None
) -> QuantConfig:
    """What to quantize to.

    Raises:
        InputError: options that say two things, or that the stage has no use for; data are missing.
    """
    given = [
        option
        for option, value in (("--quantize", quantize), ("--config", config))
        if value is not None and value is not Quantize.none
    ]
    if len(given) > 1:
        raise InputError("--quantize and --config both say what to quantize to", fix="give one")
    if given and stage in FLOAT:
        fix = "write a later stage: --stage annotated, prepared or frozen"
        raise InputError(
            f"--stage {stage.value} is in float, {given[0]} does nothing there", fix=fix
        )
    if calibrate is not None and stage not in DATA:
        fix = "write a later stage: --stage prepared or frozen"
        raise InputError(f"--stage {stage.value} has no ranges, --calibrate does nothing", fix=fix)
    if config is not None and not config.is_file():
        raise InputError(f"--config {config}: there is no such file")
    chosen = QuantConfig() if config is None else QuantConfig.from_yaml(config)
    if quantize is not None and quantize is not Quantize.none:
        chosen = QuantConfig(quantize.value)
    if stage is Stage.frozen and chosen.needs_data and calibrate is None:
        fix = "add --calibrate with a folder of pictures or an .npz file like the real inputs"
        raise InputError("--stage frozen needs calibration data", fix=fix)
    return chosen


def _graph(
    model: nn.Module,
    call: Call,
    stage: Stage,
    choices: QuantConfig,
    data: CalibrationData | None,
    target: str,
) -> GraphModule:
    """The graph of a stage."""
    kwargs = call.kwargs or None
    if stage in FLOAT:
        graph = trace(model, call.args, kwargs=kwargs)
        return Pipeline.default("float")(graph) if stage is Stage.core else graph
    steps = Pipeline.default("ptq")
    for name in UNOBSERVED.get(stage, ()):
        steps = steps.remove(name)
    graph = prepare(model, call.args, choices, pipeline=steps, backend=target, kwargs=kwargs)
    if data is not None:
        calibration.calibrate(graph, data)
    return convert(graph) if stage is Stage.frozen else graph
