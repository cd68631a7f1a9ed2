"""`fxquant inspect m.tflite`: what is in a file, without running it.

Inputs, outputs, sizes and operator counts come from the backend's own summary; `--operators` and
`--tensors` list everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fxquant.backends.tflite.contents import Subgraph
from fxquant.backends.tflite.inspection import inspect_file as summary_of
from fxquant.backends.tflite.inspection import type_text


def inspect_file(
    path: Annotated[Path, typer.Argument(help="A .tflite file, of fxquant or of another tool.")],
    operators: Annotated[
        bool, typer.Option("--operators", help="List every operator with its operands.")
    ] = False,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor with its bytes.")
    ] = False,
) -> None:
    """Show inputs, outputs, operators, size and quantization of a file."""
    summary = summary_of(path)
    console = Console()
    console.print(summary)
    if operators:
        console.print("", operator_table(summary.model.main), sep="\n")
    if tensors:
        console.print("", summary.tensor_table(), sep="\n")


def operator_table(subgraph: Subgraph) -> Table:
    """Every operator in the order of execution: its operands, results and options."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "operator", "inputs", "outputs", "options"):
        table.add_column(heading, overflow="fold")
    for number, operator in enumerate(subgraph.operators):
        inputs = [subgraph.tensors[index].name for index in operator.inputs if index >= 0]
        outputs = [subgraph.tensors[index] for index in operator.outputs]
        fields = operator.options.fields if operator.options else {}
        table.add_row(
            str(number),
            operator.name,
            Text("\n".join(inputs)),
            Text("\n".join(f"{tensor.name}  {type_text(tensor)}" for tensor in outputs)),
            Text(" ".join(f"{name}={value}" for name, value in fields.items())),
        )
    return table
