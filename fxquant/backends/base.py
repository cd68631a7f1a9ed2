"""What a backend is, and what lowering to one returns.

A backend is a constraint table, a pipeline of passes that ends in its own dialect, a writer and a
verifier. `lower` runs the first three; the last graph runs in torch and computes what the device
will.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from torch import nn
from torch.fx import GraphModule

from fxquant.errors import InputError
from fxquant.passes.pipeline import Pipeline
from fxquant.report import Report

IoLayout = Literal["nchw", "nhwc"]
IoDtype = Literal["float32", "int8"]
Segment = bytes | memoryview


@dataclass(frozen=True)
class LowerOptions:
    """The user's choices at the borders of the file.

    Attributes:
        io_layout: dimension order of image inputs and outputs.
        io_dtype: dtype of quantized inputs and outputs; "float32" keeps floats at the borders.
    """

    io_layout: IoLayout = "nchw"
    io_dtype: IoDtype = "float32"


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
    """Base of backends; see `examples` for a small one."""

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def constraints(self) -> Any:
        """The `quant.constraints.ConstraintTable` that annotate obeys."""

    @abstractmethod
    def pipeline(self, options: LowerOptions) -> Pipeline:
        """The passes from the core dialect to the backend's own."""

    @abstractmethod
    def write(self, graph_module: GraphModule) -> Sequence[Segment]:
        """The file of a graph in the backend's dialect, in pieces that are written in order."""

    @abstractmethod
    def save(self, segments: Sequence[Segment], path: Path) -> None:
        """Write the pieces to a file, whole or not at all.

        Raises:
            OutputError: the path cannot be written; what stood there is untouched.
        """

    @abstractmethod
    def count_operators(self, graph_module: GraphModule) -> dict[str, int]:
        """How often each of the file's operators occurs."""

    def simulate(self, lowered: Lowered, kernels: str) -> nn.Module:
        """The last graph as a module that computes with the arithmetic of the named kernels.

        Raises:
            InputError: the backend does not know these kernels.
        """
        if kernels != "reference":
            what = f"the backend {self.name} simulates no {kernels!r} kernels"
            raise InputError(what, fix='use kernels="reference"')
        return lowered.graph_module

    def can_verify(self) -> bool:
        """Whether the runtime that `verify` needs is installed."""
        return False

    def verify(self, lowered: Lowered, data: Iterable[Any], **options: Any) -> VerifyOutcome:
        """Run the file on data in the backend's runtime and compare it with the last graph."""
        raise NotImplementedError(f"the backend {self.name} has no verifier")


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
            self._segments = self.backend.write(self.graph_module)
        return self._segments

    def to_bytes(self) -> bytes:
        """The whole file in memory."""
        return b"".join(self.segments())

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
