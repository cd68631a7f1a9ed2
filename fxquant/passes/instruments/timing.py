"""Seconds, nodes and memory of every pass, as a table.

       time     nodes     memory  pass
      12.41 ms     71   +0.0 MiB  functionalize
       3.02 ms     62  +25.1 MiB  fuse-conv-bn
      15.43 ms in all

Memory is how far the process's peak rose while the pass ran: what fits into memory that was used
before counts nothing.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from torch.fx import GraphModule

from fxquant.passes.base import Pass, PassResult
from fxquant.passes.instruments.base import Instrument

if TYPE_CHECKING:
    from fxquant.passes.pipeline import Pipeline

try:
    import resource
except ImportError:  # Windows does not say
    resource = None  # type: ignore[assignment]


class TimingRow(NamedTuple):
    """What one pass took: seconds, nodes after it, bytes by which the peak rose."""

    name: str
    seconds: float
    nodes: int
    memory: int = 0


def peak_memory() -> int:
    """The most memory that the process ever held, in bytes; 0 where the system does not say."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Timing(Instrument):
    """Seconds, node counts and memory of every pass, in the order in which they ran.

    Args:
        printed: print the table to stderr after each pipeline.
    """

    def __init__(self, printed: bool = False) -> None:
        self.rows: list[TimingRow] = []
        self.printed = printed
        self._first = 0
        self._start = 0.0
        self._peak = 0

    def __enter__(self) -> Timing:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def before_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        self._first = len(self.rows)

    def after_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        if self.printed:
            print(_table(self.rows[self._first :]), file=sys.stderr)

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        self._peak = peak_memory()
        self._start = time.perf_counter()

    def after_pass(self, item: Pass, result: PassResult) -> None:
        seconds = time.perf_counter() - self._start
        nodes = len(result.graph_module.graph.nodes)
        self.rows.append(TimingRow(item.name, seconds, nodes, peak_memory() - self._peak))

    def total(self) -> float:
        """Seconds of all passes together."""
        return sum(row.seconds for row in self.rows)

    def table(self) -> str:
        """The rows as text: milliseconds, nodes, memory, pass."""
        return _table(self.rows)


def _table(rows: list[TimingRow]) -> str:
    lines = [
        f"{1e3 * row.seconds:9.2f} ms {row.nodes:6d} {row.memory / 2**20:+7.1f} MiB  {row.name}"
        for row in rows
    ]
    total = sum(row.seconds for row in rows)
    head = f"{'time':>12} {'nodes':>6} {'memory':>11}  pass"
    return "\n".join([head, *lines, f"{1e3 * total:9.2f} ms in all"])
