"""What watches passes run: time, lint, dumps. Passes know nothing of them.

    with instruments(Timing() as timing, Lint()):
        pipeline(graph_module)
    print(timing.table())

`FXQUANT_LINT=1`, `FXQUANT_DUMP=folder` and `FXQUANT_TIME=1` switch them on for a whole process.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch.fx import GraphModule

from fxquant.errors import PassError
from fxquant.ir.printer import format_graph
from fxquant.ir.validity import check_graph
from fxquant.passes.base import Pass, PassResult

if TYPE_CHECKING:
    from fxquant.passes.pipeline import Pipeline


class Instrument:
    """Base of instruments: every hook does nothing until a subclass fills it."""

    def before_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        """Called once, before the first pass."""

    def after_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        """Called once, after the last pass."""

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        """Called before each pass with the graph that it will get."""

    def after_pass(self, item: Pass, result: PassResult) -> None:
        """Called after each pass with what it returned."""

    def pass_failed(self, item: Pass, graph_module: GraphModule) -> None:
        """Called when a pass raised; the graph may be half rewritten."""


class Timing(Instrument):
    """Seconds and node counts of every pass, in the order in which they ran."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, int]] = []
        self._start = 0.0

    def __enter__(self) -> Timing:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        self._start = time.perf_counter()

    def after_pass(self, item: Pass, result: PassResult) -> None:
        seconds = time.perf_counter() - self._start
        self.rows.append((item.name, seconds, len(result.graph_module.graph.nodes)))

    def total(self) -> float:
        """Seconds of all passes together."""
        return sum(seconds for _, seconds, _ in self.rows)

    def table(self) -> str:
        """The rows as text: milliseconds, nodes, pass."""
        lines = [
            f"{1e3 * seconds:9.2f} ms {nodes:6d} nodes  {name}"
            for name, seconds, nodes in self.rows
        ]
        return "\n".join([*lines, f"{1e3 * self.total():9.2f} ms in all"])


class Lint(Instrument):
    """Checks the structure and the validity table after each pass, and names the culprit."""

    def after_pass(self, item: Pass, result: PassResult) -> None:
        try:
            check_graph(result.graph_module)
        except Exception as error:
            raise PassError(f"the pass {item} left an invalid graph: {error}") from error


class Dump(Instrument):
    """Writes each stage as numbered text (`003-fuse-conv-bn.txt`) and as Python (`….py`)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._number = 0

    def before_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        self._write("input", graph_module)

    def after_pass(self, item: Pass, result: PassResult) -> None:
        self._write(item.name, result.graph_module)

    def pass_failed(self, item: Pass, graph_module: GraphModule) -> None:
        self._write(f"{item.name}-failed", graph_module)

    def _write(self, name: str, graph_module: GraphModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._number:03d}-{name}.txt"
        path.write_text(format_graph(graph_module))
        code = graph_module.graph.python_code("self").src
        path.with_suffix(".py").write_text(
            f'"""The graph after {name}, as torch.fx runs it."""\n{code}'
        )
        self._number += 1


_active: contextvars.ContextVar[tuple[Instrument, ...]] = contextvars.ContextVar(
    "instruments", default=()
)


@contextlib.contextmanager
def instruments(*watching: Instrument) -> Iterator[None]:
    """Let instruments see every pass that runs inside the `with`."""
    token = _active.set((*_active.get(), *watching))
    try:
        yield
    finally:
        _active.reset(token)


def active_instruments() -> Sequence[Instrument]:
    """The instruments that are on: those of the enclosing `with` and of the environment."""
    return (*_active.get(), *_from_environment())


class _PrintedTiming(Timing):
    def after_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        print(self.table(), file=sys.stderr)


_environment_dump: dict[str, Dump] = {}


def _from_environment() -> Iterator[Instrument]:
    if os.environ.get("FXQUANT_LINT", "0") not in {"", "0"}:
        yield Lint()
    folder = os.environ.get("FXQUANT_DUMP")
    if folder:
        # One dump a process, so that the numbers of all pipelines run on.
        yield _environment_dump.setdefault(folder, Dump(folder))
    if os.environ.get("FXQUANT_TIME", "0") not in {"", "0"}:
        yield _PrintedTiming()
