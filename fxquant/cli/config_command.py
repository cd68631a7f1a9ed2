"""`fxquant config pkg.module:factory --input 1,3,224,224 -o q.yaml`: every operator's precision.

The file is edited by hand and given to `fxquant convert … --config q.yaml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fxquant.cli import options
from fxquant.cli.convert import Quantize, check_output
from fxquant.cli.input_spec import parse_inputs, random_call
from fxquant.cli.model_source import load_model
from fxquant.config_file import write_config
from fxquant.quant.config import QuantConfig


def config(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The YAML file to write.")],
    inputs: options.Inputs,
    weights: options.Weights = None,
    quantize: Annotated[Quantize, typer.Option(help="What to begin with.")] = Quantize.int8,
    start: Annotated[
        Path | None, typer.Option("--config", help="A YAML file to begin with instead.")
    ] = None,
    backend: Annotated[str, typer.Option(help="The target.")] = "tflite",
) -> None:
    """Write what every operator computes in, as YAML to edit."""
    check_output(output)
    call = random_call(parse_inputs(inputs), 0)
    name = "float32" if quantize is Quantize.none else quantize.value
    chosen = QuantConfig(name) if start is None else QuantConfig.from_yaml(start)
    write_config(
        load_model(model, weights),
        output,
        example_inputs=call.args,
        config=chosen,
        backend=backend,
        kwargs=call.kwargs,
    )
    typer.echo(f"wrote {output}")
