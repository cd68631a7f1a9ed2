"""The error report: rows of layers that sort, print, and become plain data or a page.

layer           operator      precision  alone    cumulative  cosine   max      clipped  cause
features_0_0    conv2d relu6  int8       41.2 dB  39.8 dB     0.99995  0.0471   0.01 %   weights
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fxquant.errors import InputError
from fxquant.quant.error_report.layer_error import LayerError
from fxquant.quant.error_report.sums import ErrorSums

ORDERS: dict[str, Callable[[LayerError], float]] = {
    "alone": lambda row: row.alone.sqnr_db,
    "cumulative": lambda row: row.cumulative.sqnr_db,
    "cosine": lambda row: row.cumulative.cosine,
    "max_abs": lambda row: -row.cumulative.max_abs,
    "clipped": lambda row: -row.clipped_share,
    "share": lambda row: -row.share,
}
"""Ways to sort rows, the worst first."""


class Unpaired(NamedTuple):
    """What has no counterpart in the other graph of a comparison.

    Attributes:
        node: its name.
        operator: what it computes.
        missing: the graph that holds nothing like it: `lowered` or `float`.
    """

    node: str
    operator: str
    missing: str


@dataclass
class ErrorReport:
    """The error of each layer, in the order of the graph.

    Attributes:
        rows: one for each layer, those that stayed in float included.
        outputs: error of what the model returns, by name.
        samples: how many inputs were run.
        stage: the backend in whose dialect the graph is; empty for the core dialect.
        unpaired: what could not be compared, because only one of two graphs has it.
    """

    rows: list[LayerError] = field(default_factory=list)
    outputs: dict[str, ErrorSums] = field(default_factory=dict)
    samples: int = 0
    stage: str = ""
    unpaired: list[Unpaired] = field(default_factory=list)

    def __iter__(self) -> Iterator[LayerError]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, node: str) -> LayerError:
        """The row of a node.

        Raises:
            InputError: there is none.
        """
        for row in self.rows:
            if row.node == node:
                return row
        known = ", ".join(row.node for row in self.rows)
        raise InputError(f"the report has no layer {node!r}", fix=f"the layers are {known}")

    def sorted(self, by: str = "alone") -> list[LayerError]:
        """The rows, the worst first.

        Args:
            by: `alone`, `cumulative`, `cosine`, `max_abs`, `clipped` or `share`.

        Raises:
            InputError: another word.
        """
        if by not in ORDERS:
            raise InputError(f"rows cannot be sorted by {by!r}", fix=f"use {', '.join(ORDERS)}")
        return sorted(self.rows, key=ORDERS[by])

    def worst(self, count: int = 5) -> list[LayerError]:
        """The layers to look at first: those that add the most noise of their own."""
        return [row for row in self.sorted("share") if row.share > 0][:count]

    @property
    def stayed_float(self) -> list[LayerError]:
        """What is not quantized; each row says why."""
        return [row for row in self.rows if not row.quantized]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Every row as flat, plain data: `pandas.DataFrame(report.to_dicts())`."""
        return [row.to_dict() for row in self.rows]

    def save_html(self, path: str | Path, title: str = "Error of each layer") -> Path:
        """Write the report as one page that opens without a server and asks for nothing.

        Raises:
            OutputError: the file cannot be written.
        """
        from fxquant.quant.error_report.html import save_html

        return save_html(self, path, title)

    def __rich__(self) -> Group:
        """The report for a rich console."""
        parts: list[Table | Text] = [layer_table(self.rows), Text("")]
        parts += [Text(line) for line in self.summary()]
        return Group(*parts)

    def render(self, width: int = 140) -> str:
        """The report as plain text."""
        buffer = io.StringIO()
        Console(file=buffer, width=width, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"

    def __str__(self) -> str:
        return self.render()

    def summary(self) -> list[str]:
        """The outputs' errors, and where to look first."""
        several = "s" if self.samples != 1 else ""
        where = f" in the {self.stage} dialect" if self.stage else ""
        lines = [f"{self.samples} sample{several}{where}"]
        for name, sums in self.outputs.items():
            figures = f"{decibels(sums.sqnr_db)}, cosine {sums.cosine:.5f}"
            lines.append(f"output {name}: {figures}, largest error {sums.max_abs:.3g}")
        for row in self.worst(3):
            where = f" (in {row.module})" if row.module else ""
            what = f"{row.share:.0%} of all layers' own noise, mostly {row.cause}"
            lines.append(f"look at %{row.node}{where}: {what}; try {row.advice}")
        for missing in dict.fromkeys(each.missing for each in self.unpaired):
            found = [each for each in self.unpaired if each.missing == missing]
            names = ", ".join(f"%{each.node} ({each.operator})" for each in found)
            lines.append(f"no counterpart in the {missing} graph: {names}")
        return lines


HEADINGS = (
    *("layer", "operator", "precision", "alone", "weights", "cumulative"),
    *("cosine", "max error", "clipped", "cause", "from"),
)


NUMBERS = frozenset({"alone", "weights", "cumulative", "cosine", "max error", "clipped"})


def layer_table(rows: list[LayerError]) -> Table:
    """Layers as a table."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for heading in HEADINGS:
        table.add_column(
            heading,
            overflow="fold",
            justify="right" if heading in NUMBERS else "left",
            no_wrap=heading in {"layer", "from"},
        )
    for row in rows:
        style = "" if row.quantized else "dim"
        table.add_row(*map(Text, cells(row)), style=style)
    return table


def cells(row: LayerError) -> tuple[str, ...]:
    """A row as text, in the order of `HEADINGS`."""
    return (
        row.node,
        row.operator,
        row.precision,
        decibels(row.alone.sqnr_db),
        "" if row.weights is None else decibels(row.weights.sqnr_db),
        decibels(row.cumulative.sqnr_db),
        f"{row.cumulative.cosine:.5f}",
        f"{row.cumulative.max_abs:.3g}",
        "" if row.grid is None else percent(row.clipped_share),
        row.cause if row.quantized else row.reason,
        row.source.partition("  ")[0],
    )


def decibels(value: float) -> str:
    """A ratio in decibels.

    >>> decibels(31.26), decibels(float("inf"))
    ('31.3 dB', 'exact')
    """
    if math.isinf(value):
        return "exact" if value > 0 else "no signal"
    return f"{value:.1f} dB"


def percent(share: float) -> str:
    """A share as text.

    >>> percent(0.0), percent(0.00012), percent(0.25)
    ('0 %', '0.012 %', '25 %')
    """
    return f"{100 * share:.2g} %"
