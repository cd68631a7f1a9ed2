"""What became of a model: operators, size, what stayed float and why, time and error."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class StayedFloat:
    """An operator that computes in float although quantization was asked for."""

    node: str
    operator: str
    reason: str
    source: str = ""


@dataclass
class Report:
    """The figures of one compile.

    Attributes:
        operators: how often each operator of the file occurs.
        size: bytes of the file.
        stayed_float: what was not quantized, each with its reason.
        seconds: wall seconds of each stage.
        error: figures of the comparison with torch by name, e.g. `{"sqnr_db": 31.2}`.
        notes: remarks of passes.
    """

    operators: dict[str, int] = field(default_factory=dict)
    size: int = 0
    stayed_float: list[StayedFloat] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def operator_count(self) -> int:
        """Operators in the file, all kinds together."""
        return sum(self.operators.values())

    def __rich__(self) -> Group:
        """The report for a rich console."""
        parts: list[Table | Text] = [_figures(self)]
        if self.stayed_float:
            parts.append(_float_table(self.stayed_float))
        parts.extend(Text(f"note: {note}", style="dim") for note in self.notes)
        return Group(*parts)

    def render(self, width: int = 100) -> str:
        """The report as plain text."""
        console = Console(file=io.StringIO(), width=width, color_system=None)
        console.print(self)
        file = console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()


def _figures(report: Report) -> Table:
    table = Table(show_header=False, title="summary", title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_row("operators", f"{report.operator_count()}: {_counts(report.operators)}")
    table.add_row("size", f"{report.size / 1e6:.3f} MB")
    if report.seconds:
        times = ", ".join(f"{name} {value:.2f} s" for name, value in report.seconds.items())
        table.add_row("time", times)
    for name, value in report.error.items():
        table.add_row(name, f"{value:.4g}")
    table.add_row("stayed float", str(len(report.stayed_float)))
    return table


def _counts(operators: dict[str, int]) -> str:
    ordered = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)


def _float_table(rows: list[StayedFloat]) -> Table:
    table = Table(title="stayed float", title_justify="left")
    for heading in ("node", "operator", "reason", "from"):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.node, row.operator, row.reason, row.source)
    return table
