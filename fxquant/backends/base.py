"""What a backend is, and what lowering to one returns.

A backend is a constraint table, a pipeline of passes that ends in its own dialect, a writer and a
verifier. `lower` runs the first three; the last graph runs in torch and computes what the device
will.
"""

from __future__ import annotations

import difflib
import types
import typing
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from fxquant.backends.lowering.check_operators import CheckOperators
from fxquant.backends.lowering.output_file import write_file
from fxquant.errors import InputError, Problem
from fxquant.ir.aten import packet_name
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.constraints import ConstraintTable
from fxquant.report import Report

IoLayout = Literal["nchw", "nhwc"]
IoDtype = Literal["float32", "int8", "uint8", "int16"]
Require = Literal["int8", "uint8", "int16x8"]
Segment = bytes | memoryview

REQUIRED_BORDERS: Mapping[str, IoDtype] = {"int8": "int8", "uint8": "uint8", "int16x8": "int16"}
"""The dtype of the borders where a file of nothing but integers is required, by promise."""


@dataclass(frozen=True)
class LowerOptions:
    """The user's choices for the file.

    Attributes:
        io_layout: dimension order of image inputs and outputs.
        io_dtype: dtype of quantized inputs and outputs; "float32" keeps floats at the borders.
        own: choices that only the backend knows, by name; see its `options_class`.
        require: the file must compute in nothing but these integers, or is refused.
    """

    io_layout: IoLayout = "nchw"
    io_dtype: IoDtype = "float32"
    own: Mapping[str, Any] = field(default_factory=dict)
    require: Require | None = None

    @staticmethod
    def of(
        io_layout: IoLayout,
        io_dtype: IoDtype | None,
        own: Mapping[str, Any] | None,
        require: Require | None,
    ) -> LowerOptions:
        """The choices with the borders that a promise implies where none are given.

        Raises:
            InputError: no such promise, or floats at the borders of a file that may hold none.
        """
        if require is not None and require not in REQUIRED_BORDERS:
            known = ", ".join(map(repr, REQUIRED_BORDERS))
            raise InputError(f"require={require!r} is not known", fix=f"use one of {known}")
        if require is not None and io_dtype == "float32":
            fix = "leave out io_dtype=, or give integers"
            raise InputError(f'require="{require}" rules out io_dtype="float32"', fix=fix)
        implied: IoDtype = "float32" if require is None else REQUIRED_BORDERS[require]
        return LowerOptions(io_layout, io_dtype or implied, dict(own or {}), require)


class VerifyOutcome(Protocol):
    """What a backend's verifier returns."""

    @property
    def ok(self) -> bool:
        """Whether the file computes what the last graph computes."""

    def check(self) -> None:
        """Raise `VerifyError` unless `ok`."""

    def render(self) -> str:
        """The comparison as a table of text."""


class Backend(ABC):
    """Base of backends; docs/backend.md says how to write one, examples/ holds a small one.

    Attributes:
        name: by which users ask for it.
        suffix: of its files.
        options_class: a frozen dataclass of the choices that only this backend knows.
        any_stage: whether it takes a graph of any stage as it is, instead of the core dialect.
        by_options: precisions that it gives to a float graph by itself, and the options that ask
            for them.
        table: the constraints that annotate obeys; None for a backend that is float only.
        dynamic_shapes: whether its files can have dimensions that are chosen when they run.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    options_class: ClassVar[type[Any] | None] = None
    any_stage: ClassVar[bool] = False
    by_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    dynamic_shapes: ClassVar[bool] = False
    table: ClassVar[ConstraintTable | None] = None

    def constraints(self) -> Any:
        """The `quant.constraints.ConstraintTable` that annotate obeys; None: float only."""
        return self.table

    def pipeline(self, options: LowerOptions) -> Pipeline:
        """The passes from the core dialect to the backend's own.

        By default the file is written from the core dialect itself, its borders as the model has
        them, and every operator must have a row in the table.

        Raises:
            InputError: options or borders that the backend does not have.
        """
        self.own_options(options)
        self.refuse_borders(options)
        table = self.constraints()
        known = () if table is None else tuple(table.rows)
        check = () if table is None else (CheckOperators(self.name, known),)
        return Pipeline(check, title=self.name)

    @abstractmethod
    def write(self, graph_module: GraphModule, options: LowerOptions) -> Sequence[Segment]:
        """The file of a graph in the backend's dialect, in pieces that are written in order."""

    def join(self, segments: Sequence[Segment]) -> bytes:
        """The pieces as one string."""
        return b"".join(segments)

    def save(self, segments: Sequence[Segment], path: Path) -> None:
        """Write the pieces to a file, whole or not at all.

        Raises:
            OutputError: the path cannot be written; what stood there is untouched.
        """
        write_file(path, segments)

    def count_operators(self, graph_module: GraphModule) -> dict[str, int]:
        """How often each of the file's operators occurs."""
        return count_calls(graph_module.graph.nodes)

    def operators_of(self, graph_module: GraphModule, core: str) -> dict[str, int]:
        """The operators that a node of the core dialect has become; see `explain`."""
        nodes = graph_module.graph.nodes
        return count_calls(node for node in nodes if node.meta.get("core") == core)

    def own_options(self, options: LowerOptions) -> Any:
        """The backend's own choices as its `options_class`; None where it has no such class.

        Raises:
            InputError: choices that it does not have, or of another type; all of them.
        """
        return read_options(self.options_class, options.own, self.name)

    def refuse_borders(self, options: LowerOptions) -> None:
        """For backends whose files have the model's own layout and float borders.

        Raises:
            InputError: another layout or dtype is asked for.
        """
        given = (
            ("require", options.require, None),
            ("io_layout", options.io_layout, "nchw"),
            ("io_dtype", options.io_dtype, "float32"),
        )
        for name, value, only in given:
            if value != only:
                fix = f"leave out {name}="
                raise InputError(f"{self.name} has no {name}={value!r}, only {only!r}", fix=fix)

    def check_promise(self, lowered: Lowered, core: GraphModule) -> None:
        """Refuse a file that does not keep `lowered.options.require`; `core` was lowered to it.

        Raises:
            UnsupportedOp: with every operator that stands in the way.
        """
        raise InputError(f"the backend {self.name} has no require=", fix="leave out require=")

    def simulate(self, lowered: Lowered, kernels: str) -> nn.Module:
        """The last graph as a module that computes with the arithmetic of the named kernels.

        Raises:
            InputError: the backend does not know these kernels.
        """
        if kernels != "reference":
            what = f"the backend {self.name} simulates no {kernels!r} kernels"
            raise InputError(what, fix='use kernels="reference"')
        return lowered.graph_module

    def inputs_of(self, lowered: Lowered, leaves: Sequence[Any]) -> Sequence[Any]:
        """The values of the last graph's placeholders for those of the model's inputs."""
        return leaves

    def real(self, value: Any) -> Tensor | None:
        """The reals that a value of the last graph stands for; None where it stands for none."""
        is_real = isinstance(value, Tensor) and value.is_floating_point()
        return value if is_real else None

    def stored(self, value: Tensor, like: Any, node: Node) -> Any:
        """Reals as the last graph stores them at a node, whose own value was `like`."""
        return value.to(like.dtype)

    def is_activated(self, node: Node) -> bool:
        """Whether an activation is fused into a node of the last graph."""
        return False

    def can_verify(self) -> bool:
        """Whether the runtime that `verify` needs is installed."""
        return False

    def verify(self, lowered: Lowered, data: Iterable[Any], **options: Any) -> VerifyOutcome:
        """Run the file on data in the backend's runtime and compare it with the last graph."""
        raise NotImplementedError(f"the backend {self.name} has no verifier")


def count_calls(nodes: Iterable[Node]) -> dict[str, int]:
    """How often each function is called, by name."""
    called = (packet_name(node.target) for node in nodes if node.op == "call_function")
    return dict(Counter(name for name in called if name != "getitem"))


def read_options(kind: type[Any] | None, given: Mapping[str, Any], backend: str) -> Any:
    """A dataclass of options from what the user gave, by name.

    Raises:
        InputError: names that it does not have, or values of another type; all of them.
    """
    known = {} if kind is None else typing.get_type_hints(kind)
    assert kind is None or is_dataclass(kind)
    names = [] if kind is None else [each.name for each in fields(kind)]
    problems = [_unknown(name, names) for name in given if name not in names]
    problems += [
        Problem(f"{name}={value!r} is no {_spelled(known[name])}")
        for name, value in given.items()
        if name in names and not _fits(value, known[name])
    ]
    if problems:
        raise InputError(f"the options do not fit the backend {backend}", problems=problems)
    return None if kind is None else kind(**given)


def _unknown(name: str, known: Sequence[str]) -> Problem:
    close = difflib.get_close_matches(name, known, n=1)
    has = f"it has {', '.join(known)}" if known else "it has none"
    return Problem(f"there is no option {name}", fix=f"did you mean {close[0]}?" if close else has)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_fits(value, each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    plain = typing.get_origin(kind) or kind
    if isinstance(value, bool) and plain is not bool:
        return False  # Python's bool is an int
    return isinstance(value, plain) or (plain is float and isinstance(value, int))


def _spelled(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


@dataclass
class Lowered:
    """A program in a backend's dialect.

    Attributes:
        graph_module: the last graph; called like the model, with the layout and dtype of the file.
        backend: who made it.
        options: the borders that were asked for.
        report: what became of the model: operators, size, what stayed float and why.
    """

    graph_module: GraphModule
    backend: Backend
    options: LowerOptions = field(default_factory=LowerOptions)
    report: Report = field(default_factory=Report)
    _segments: Sequence[Segment] | None = field(default=None, repr=False)

    def segments(self) -> Sequence[Segment]:
        """The file in pieces; weights are views of the graph's tensors, not copies."""
        if self._segments is None:
            self._segments = self.backend.write(self.graph_module, self.options)
        return self._segments

    def to_bytes(self) -> bytes:
        """The whole file in memory."""
        return self.backend.join(self.segments())

    def size(self) -> int:
        """The size of the file in bytes."""
        return sum(memoryview(segment).nbytes for segment in self.segments())

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all, and return its path.

        Raises:
            OutputError: the path cannot be written; what stood there is untouched.
        """
        target = Path(path)
        self.backend.save(self.segments(), target)
        return target
