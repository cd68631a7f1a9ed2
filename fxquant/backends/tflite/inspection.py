"""What is in a file, without running it: counts, sizes, types, and what computes in float.

summary = inspect_file("m.tflite")
summary.operators["CONV_2D"]   53
summary.borders                Borders(transpose=1, quantize=1, dequantize=1)
summary.floats                 ("SOFTMAX",)
print(summary.render())
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fxquant.backends.tflite.contents import FileModel, FileTensor, Subgraph
from fxquant.backends.tflite.reader import read_bytes, read_file

VERSION_METADATA = "min_runtime_version"


@dataclass(frozen=True)
class Borders:
    """How many operators only move values between layouts and dtypes."""

    transpose: int = 0
    quantize: int = 0
    dequantize: int = 0

    def __str__(self) -> str:
        return f"{self.transpose} TRANSPOSE, {self.quantize} QUANTIZE, {self.dequantize} DEQUANTIZE"


@dataclass(frozen=True)
class FileSummary:
    """The figures of one file.

    Attributes:
        name: the path, or what the data were called.
        size: bytes of the file.
        constants: bytes of stored tensors by dtype.
        operators: how often each operator occurs.
        versions: the highest version of each operator.
        floats: names of the tensors that operators compute in float, in order.
        inputs: the user's name of each input with its tensor.
        outputs: the user's name of each output with its tensor.
        model: everything that the file holds.
    """

    name: str
    size: int
    model: FileModel
    constants: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    floats: tuple[str, ...] = ()
    inputs: Mapping[str, FileTensor] = field(default_factory=dict)
    outputs: Mapping[str, FileTensor] = field(default_factory=dict)

    @property
    def borders(self) -> Borders:
        """Operators that only move values between layouts and dtypes."""
        names = ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE")
        return Borders(*(self.operators.get(name, 0) for name in names))

    @property
    def runtime(self) -> str:
        """The first runtime that has all operators, as far as the file says."""
        stored = self.model.metadata.get(VERSION_METADATA, b"")
        return stored.rstrip(b"\0").decode("utf-8", "replace")

    def render(self, width: int = 100, *, tensors: bool = False) -> str:
        """The summary as plain text, on wish with a table of all tensors."""
        buffer = io.StringIO()
        console = Console(file=buffer, width=width, color_system=None)
        console.print(self)
        if tensors:
            console.print(self.tensor_table())
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"

    def tensor_table(self) -> Table:
        """Every tensor: type, quantization and stored bytes."""
        table = _table("", "tensor", "type", "stored", right=(0, 3))
        for number, tensor in enumerate(self.model.main.tensors):
            stored = len(self.model.buffers[tensor.buffer]) if tensor.is_constant else 0
            text = size_text(stored) if stored else ""
            table.add_row(str(number), Text(tensor.name), Text(type_text(tensor)), text)
        return table

    def __rich__(self) -> Group:
        """The summary for a rich console."""
        return Group(self._facts(), Text(""), self._operators())

    def _facts(self) -> Table:
        table = _table("", "", header=False)
        constants = ", ".join(f"{size_text(size)} {name}" for name, size in self.constants.items())
        floats = f"{len(self.floats)} of {sum(self.operators.values())} operators"
        facts: list[tuple[str, str]] = [
            ("file", self.name),
            ("size", f"{size_text(self.size)}  (stored: {constants or 'nothing'})"),
            ("made by", self.model.description),
            ("runtime", f"{self.runtime} or later" if self.runtime else ""),
            *(("input", f"{name}  {type_text(each)}") for name, each in self.inputs.items()),
            *(("output", f"{name}  {type_text(each)}") for name, each in self.outputs.items()),
            ("float", floats if self.floats else "nothing"),
            ("moves", str(self.borders)),
        ]
        for label, text in facts:
            if text:
                table.add_row(label, Text(text))
        return table

    def _operators(self) -> Table:
        table = _table("operator", "count", "version", right=(1, 2))
        for name, count in sorted(self.operators.items(), key=lambda pair: (-pair[1], pair[0])):
            table.add_row(name, str(count), str(self.versions[name]))
        return table


def inspect_file(path: str | os.PathLike[str]) -> FileSummary:
    """The summary of a file.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is not a TFLite file.
    """
    return summarize(read_file(path), Path(path).stat().st_size, str(path))


def inspect_bytes(data: bytes | memoryview, name: str = "the data") -> FileSummary:
    """The summary of a file in memory."""
    return summarize(read_bytes(data, name=name), len(data), name)


def summarize(model: FileModel, size: int, name: str) -> FileSummary:
    """The figures of contents that are read already."""
    main, versions = model.main, Counter[str]()
    for operator in main.operators:
        versions[operator.name] = max(versions[operator.name], operator.version)
    return FileSummary(
        name=name,
        size=size,
        model=model,
        constants=_constants(model),
        operators=Counter(operator.name for operator in main.operators),
        versions=versions,
        floats=_floats(main),
        inputs=_border(model, 0),
        outputs=_border(model, 1),
    )


def type_text(tensor: FileTensor) -> str:
    """Type, shape and quantization in a few words; a size that may change is `?`.

    >>> from fxquant.ir.types import Quantization
    >>> type_text(FileTensor("x", (1, 8), "int8", Quantization((0.5,), (-3,)), signature=(-1, 8)))
    'int8[?,8] <0.5,-3>'
    """
    sizes = ",".join("?" if size < 0 else str(size) for size in tensor.signature or tensor.shape)
    quantization = "" if tensor.quantization is None else f" <{tensor.quantization}>"
    return f"{tensor.dtype}[{sizes}]{quantization}"


def size_text(size: int) -> str:
    """A number of bytes in a fitting unit.

    >>> size_text(1712), size_text(102_400_000)
    ('1.7 kB', '102.4 MB')
    """
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _constants(model: FileModel) -> dict[str, int]:
    """Bytes by dtype; a buffer that several tensors share counts once."""
    found: Counter[str] = Counter()
    seen = {0}
    for tensor in model.main.tensors:
        if tensor.buffer not in seen:
            seen.add(tensor.buffer)
            found[tensor.dtype] += len(model.buffers[tensor.buffer])
    return dict(found.most_common())


def _floats(subgraph: Subgraph) -> tuple[str, ...]:
    """What operators other than DEQUANTIZE make in float."""
    tensors = subgraph.tensors
    return tuple(
        tensors[index].name
        for operator in subgraph.operators
        if operator.name != "DEQUANTIZE"
        for index in operator.outputs[:1]
        if tensors[index].dtype.startswith(("float", "bfloat"))
    )


def _border(model: FileModel, side: int) -> dict[str, FileTensor]:
    tensors = model.main.tensors
    for signature in model.signatures:
        if signature.subgraph == 0:
            return {name: tensors[n] for name, n in (signature.inputs, signature.outputs)[side]}
    return {tensors[n].name: tensors[n] for n in (model.main.inputs, model.main.outputs)[side]}


def _table(*columns: str, right: tuple[int, ...] = (), header: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False, show_header=header)
    for number, column in enumerate(columns):
        justify = "right" if number in right else "left"
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table
