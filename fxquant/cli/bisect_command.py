"""`fxquant bisect pkg:factory --input 1,3,224,224 --predicate pkg:function`: who broke it.

The predicate is given the graph of each stage, which is called like the model, and says whether it
is still good. With `--calibrate` the passes are those of an int8 file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fxquant.bisection import bisect as find
from fxquant.cli import options
from fxquant.cli.calibration_data import open_calibration_data
from fxquant.cli.input_spec import parse_inputs, random_call
from fxquant.cli.model_source import load_function, load_model
from fxquant.cli.pictures import Preprocessing


def bisect(
    model: options.Model,
    inputs: options.Inputs,
    predicate: Annotated[
        str, typer.Option(help="package.module:function of a graph; true is good.")
    ],
    weights: options.Weights = None,
    pipeline: Annotated[str | None, typer.Option(help="Passes to run, as text.")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="Data for int8: .npz, .npy, .safetensors or pictures.")
    ] = None,
    limit: options.Limit = 32,
) -> None:
    """Find the pass, then the node, after which a predicate fails."""
    specs = parse_inputs(inputs)
    data = None
    if calibrate is not None:
        data = open_calibration_data(calibrate, specs, Preprocessing((0.0,), (1.0,), None), limit)
    call = random_call(specs) if data is None else data.call(0)
    found = find(
        load_model(model, weights),
        call.args,
        load_function(predicate),
        kwargs=call.kwargs or None,
        pipeline=pipeline,
        calibration=data,
    )
    typer.echo(str(found))
