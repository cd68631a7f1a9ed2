"""What automatic mixed precision chose, and what it gained."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from fxquant.mixed.candidate import Candidate
from fxquant.passes.borders import borders


@dataclass(frozen=True)
class Chosen:
    """One layer and its precision.

    Attributes:
        layer: the module path, or the node where it has none.
        node: the node that computes.
        operator: what it computes.
        precision: what it was given.
        alone: SQNR at the output in dB with only this layer quantized, as it was at first.
        source: the user's line.
    """

    layer: str
    node: str
    operator: str
    precision: str
    alone: float
    source: str = ""


@dataclass(frozen=True)
class Figures:
    """What one configuration comes to.

    Attributes:
        sqnr: at the output, dB.
        metric: the user's metric, where there is one.
        size: bytes of weights and biases.
        latency: milliseconds by the target's cost table.
        borders: conversions between precisions inside the graph.
        border_bytes: bytes that they read and write.
    """

    sqnr: float
    metric: float | None
    size: int
    latency: float
    borders: int
    border_bytes: int


def figures_of(candidate: Candidate, metric: float | None) -> Figures:
    """The figures of a candidate."""
    found = borders(candidate.annotated)
    size = sum(border.size for border in found)
    return Figures(candidate.sqnr, metric, candidate.size, candidate.latency, len(found), size)


@dataclass(frozen=True)
class MixedReport:
    """The choice for every layer, and the figures before and after.

    Attributes:
        rows: one a layer that could be quantized.
        before: as the configuration asked at first.
        after: as chosen.
        met: whether the budget is kept.
        steps: how many layers were given another precision.
        costs: where the figures of latency come from.
        foreseen: SQNR in dB that the simulation gives the choice, on the data of the search.
    """

    rows: tuple[Chosen, ...]
    before: Figures
    after: Figures
    met: bool
    steps: int
    costs: str
    foreseen: float

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain data, e.g. for `pandas.DataFrame`."""
        return [asdict(row) for row in self.rows]

    def __rich__(self) -> Group:
        return Group(self._figures(), self._layers())

    def _figures(self) -> Table:
        kept = "kept" if self.met else "NOT kept"
        title = f"mixed precision: budget {kept}, {self.steps} layers changed; {self._counts()}"
        table = Table(title=title, title_justify="left")
        table.add_column("")
        table.add_column("before", justify="right")
        table.add_column("after", justify="right")
        pairs = zip(_lines(self.before), _lines(self.after), strict=True)
        for (name, first), (_, second) in pairs:
            table.add_row(name, first, second)
        foreseen = f"SQNR foreseen {self.foreseen:.1f} dB"
        table.caption = f"{foreseen}; latency: a proxy by {self.costs}"
        return table

    def _counts(self) -> str:
        counts = Counter(row.precision for row in self.rows)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common())

    def _layers(self) -> Table:
        table = Table()
        for heading in ("layer", "node", "operator", "alone, dB", "precision"):
            table.add_column(heading)
        for row in self.rows:
            table.add_row(row.layer, row.node, row.operator, f"{row.alone:.1f}", row.precision)
        return table

    def render(self, width: int = 120) -> str:
        """The report as plain text."""
        file = io.StringIO()
        Console(file=file, width=width, color_system=None).print(self)
        return file.getvalue()

    def __str__(self) -> str:
        return self.render()


def _lines(figures: Figures) -> list[tuple[str, str]]:
    lines = [("SQNR, dB", f"{figures.sqnr:.1f}")]
    if figures.metric is not None:
        lines.append(("metric", f"{figures.metric:.4g}"))
    return [
        *lines,
        ("bytes of weights", f"{figures.size:,}"),
        ("latency, ms", f"{figures.latency:.3g}"),
        ("borders", str(figures.borders)),
        ("bytes at borders", f"{figures.border_bytes:,}"),
    ]
