"""`fxquant source pkg:factory --input 1,3,224,224 --stage stubbed -o model.py`: the model as code.

    traced      as the model is
    stubbed     with stubs, modules for every function that has a range, and a list of fusions
    core        the dialect of the passes, norms folded
    annotated   that, and behind each line the precision and why
    prepared    that, with a FakeQuantize for each quantized value

The file is run and compared with the graph, bit for bit, before it is written.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fxquant.api import lower, prepare
from fxquant.api import verify as compare
from fxquant.cli.input_spec import parse_inputs, random_call
from fxquant.cli.model_source import load_model
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig
from fxquant.tracing import trace


class Stage(StrEnum):
    """The stage whose graph is written."""

    traced = "traced"
    stubbed = "stubbed"
    core = "core"
    annotated = "annotated"
    prepared = "prepared"


def source(
    model: Annotated[str, typer.Argument(help="package.module:factory or path/file.py:factory")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .py file to write.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", help="1,3,224,224 or ids=1,128:int64; once for each input."),
    ],
    stage: Annotated[Stage, typer.Option(help="What to write.")] = Stage.traced,
    weights: Annotated[Path | None, typer.Option(help="State dict: .safetensors or .pt.")] = None,
    config: Annotated[Path | None, typer.Option(help="QuantConfig as YAML.")] = None,
    target: Annotated[str, typer.Option(help="The backend whose constraints decide.")] = "tflite",
) -> None:
    """Write a model as a readable Python file, its weights beside it."""
    call = random_call(parse_inputs(inputs))
    loaded = load_model(model, weights)
    choices = None if config is None else QuantConfig.from_yaml(config)
    if stage in {Stage.annotated, Stage.prepared}:
        without = () if stage is Stage.prepared else ("insert-stubs", "insert-observers")
        steps = Pipeline.default("ptq")
        for name in without:
            steps = steps.remove(name)
        graph = prepare(
            loaded, call.args, choices, pipeline=steps, backend=target, kwargs=call.kwargs or None
        )
    else:
        graph = trace(loaded, call.args, kwargs=call.kwargs or None)
        graph = Pipeline.default("float")(graph) if stage is Stage.core else graph
    own = {"stage": "stubbed", "target": target} if stage is Stage.stubbed else {}
    lowered = lower(graph, "source", options=own)
    compare(lowered, [call.kwargs or call.args]).check()
    typer.echo(f"wrote {lowered.save(output)}")
