"""`fxquant inspect m.tflite`: what is in a file, without running it.

m.tflite   0.042 MB, 0.038 MB of it constants
inputs     x       int8[1,3,32,32]  0.0186 × (q + 14)
outputs    output  int8[1,10]       0.1 × (q - 3)

operator   count  version  computes in
CONV_2D        9        3  int8
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fxquant.backends.tflite.contents import FileModel, FileOperator, FileTensor, Subgraph
from fxquant.backends.tflite.reader import read_file
from fxquant.ir.types import Quantization


def inspect_file(
    path: Annotated[Path, typer.Argument(help="A .tflite file, of fxquant or of another tool.")],
    operators: Annotated[
        bool, typer.Option("--operators", help="List every operator with its operands.")
    ] = False,
) -> None:
    """Show inputs, outputs, operators, size and quantization of a file."""
    model = read_file(path)
    console = Console()
    console.print(_borders(path, model))
    for number, subgraph in enumerate(model.subgraphs):
        if len(model.subgraphs) > 1:
            console.print(Text(f"\nsubgraph {number}: {subgraph.name}", style="bold"))
        console.print(_operator_list(subgraph) if operators else _operator_counts(subgraph))


def _borders(path: Path, model: FileModel) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    constants = sum(memoryview(buffer).nbytes for buffer in model.buffers)
    size = f"{path.stat().st_size / 1e6:.3f} MB, {constants / 1e6:.3f} MB of it constants"
    table.add_row(Text(str(path), style="bold"), size)
    if model.description:
        table.add_row("made by", model.description)
    for signature in model.signatures:
        tensors = model.subgraphs[signature.subgraph].tensors
        table.add_row("signature", Text(signature.key))
        _add_tensors(table, "inputs", ((name, tensors[index]) for name, index in signature.inputs))
        _add_tensors(
            table, "outputs", ((name, tensors[index]) for name, index in signature.outputs)
        )
    if not model.signatures:
        main = model.main
        for label, indices in (("inputs", main.inputs), ("outputs", main.outputs)):
            found = [main.tensors[index] for index in indices]
            _add_tensors(table, label, ((tensor.name, tensor) for tensor in found))
    return table


def _add_tensors(table: Table, label: str, tensors: Iterable[tuple[str, FileTensor]]) -> None:
    for name, tensor in tensors:
        table.add_row(label, Text(f"{name}  {tensor_text(tensor)}"))
        label = ""


def tensor_text(tensor: FileTensor) -> str:
    """Type, shape and quantization of a tensor; a dimension that may change is `?`."""
    sizes = tensor.signature or tensor.shape
    shape = ",".join("?" if size < 0 else str(size) for size in sizes)
    meaning = f"  {meaning_text(tensor.quantization)}" if tensor.quantization else ""
    return f"{tensor.dtype}[{shape}]{meaning}"


def meaning_text(quantization: Quantization) -> str:
    """What an integer q stands for.

    >>> meaning_text(Quantization((0.5,), (-3,)))
    '0.5 × (q + 3)'
    """
    if len(quantization.scale) > 1:
        return f"{len(quantization.scale)} scales on dimension {quantization.axis}"
    scale, zero_point = quantization.scale[0], quantization.zero_point[0]
    if zero_point == 0:
        return f"{scale:.6g} × q"
    return f"{scale:.6g} × (q {'+' if zero_point < 0 else '-'} {abs(zero_point)})"


def _operator_counts(subgraph: Subgraph) -> Table:
    counts = Counter(
        (operator.name, operator.version, computes_in(operator, subgraph))
        for operator in subgraph.operators
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("operator")
    table.add_column("count", justify="right")
    table.add_column("version", justify="right")
    table.add_column("computes in")
    for (name, version, dtype), count in sorted(counts.items(), key=lambda item: (-item[1], item)):
        table.add_row(name, str(count), str(version), dtype)
    table.add_section()
    table.add_row("in all", str(len(subgraph.operators)))
    return table


def computes_in(operator: FileOperator, subgraph: Subgraph) -> str:
    """The dtypes of an operator's activations: `int8`, or `int8 → float32` where they differ."""
    given = {
        tensor.dtype
        for tensor in (subgraph.tensors[index] for index in operator.inputs if index >= 0)
        if not tensor.is_constant
    }
    made = {subgraph.tensors[index].dtype for index in operator.outputs}
    sides = [", ".join(sorted(side)) for side in (given, made) if side]
    return " → ".join(dict.fromkeys(sides))


def _operator_list(subgraph: Subgraph) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "operator", "inputs", "output", "options"):
        table.add_column(heading, overflow="fold")
    for number, operator in enumerate(subgraph.operators):
        inputs = [subgraph.tensors[index].name for index in operator.inputs if index >= 0]
        outputs = [subgraph.tensors[index] for index in operator.outputs]
        fields = operator.options.fields if operator.options else {}
        table.add_row(
            str(number),
            operator.name,
            Text("\n".join(inputs)),
            Text("\n".join(f"{tensor.name}  {tensor_text(tensor)}" for tensor in outputs)),
            Text(" ".join(f"{key}={value}" for key, value in fields.items())),
        )
    return table
