"""What came out when the file ran: one row for each operator, one for each output.

    operator  node      type                    alone          from the start
    conv_2d   %conv     i8<0.02,-3>[1,8,8,16]   100 %          100 %
    mean      %mean     i8<0.01,5>[1,16]        99.8 %, 1 step 99.8 %, 1 step

*Alone*: the operator computed on the runtime's own inputs. *From the start*: on the simulated ones,
so that what an earlier operator does differently shows here too.

*Hybrid* operators put float values on grids themselves. A value half-way between two steps may
fall to either side, as the last bit of its scale differs; a result then differs by a step times a
weight. Where the graph saw such values, as many of these differences are allowed, two at most;
outputs behind them are judged by the signal to noise; so are, less strictly, outputs of graphs that
quantize floats which they computed, as a step of integers is large.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fxquant.backends.tflite.differences import FLOAT_TOLERANCE, Difference
from fxquant.errors import Problem, VerifyError

LEAST_AGREEMENT = 0.99
STEPS_ALLOWED = 1
HYBRID_SQNR = 40.0
ROUNDED_SQNR = 20.0
# RESIZE_BILINEAR in XNNPACK computes in 11 bits, the other kernels in 10.
MORE_STEPS: dict[tuple[str, str], int] = {("resize_bilinear", "xnnpack"): 2}


@dataclass
class OperatorRow:
    """One operator: how the file's result differs from the graph's.

    Attributes:
        node, operator, type: its name in the graph, what it is, and what its result is.
        source, text: the user's line, and the node as it prints.
        alone, chained: the difference on the runtime's own inputs, and from the start.
        mismatch: another shape or dtype than the file has.
        hybrid: whether it puts float values on grids itself.
        beyond: by how much floats differ more than they may, over the largest result.
    """

    node: str
    operator: str
    type: str
    source: str | None = None
    text: str | None = None
    alone: Difference = field(default_factory=Difference)
    chained: Difference = field(default_factory=Difference)
    mismatch: str = ""
    hybrid: bool = False
    beyond: float = 0.0

    def failure(self, kernels: str) -> str:
        """Why the operator is not good enough; empty when it is."""
        allowed = MORE_STEPS.get((self.operator, kernels), STEPS_ALLOWED)
        if self.mismatch:
            return self.mismatch
        if self.alone.steps > allowed:
            return f"{self.operator} differs by {self.alone.steps} steps, more than {allowed}"
        if self.beyond > 0:
            return f"{self.operator} differs by {self.alone.relative:.1e} of its largest value"
        return ""


@dataclass
class OutputRow:
    """One output of the file, against the graph and, where there is one, the float model."""

    name: str
    type: str
    simulated: Difference = field(default_factory=Difference)
    reference: Difference | None = None
    hybrid: bool = False
    least_sqnr: float = HYBRID_SQNR

    def failure(self) -> str:
        """Why the output is not good enough; empty when it is."""
        near = self.hybrid and self.simulated.sqnr >= self.least_sqnr
        if near or self.simulated.agreement >= LEAST_AGREEMENT:
            return ""
        return (
            f"the output {self.name} agrees in {self.simulated.agreement:.1%} of its values, "
            f"less than {LEAST_AGREEMENT:.0%}"
        )


@dataclass
class VerifyReport:
    """The comparison of a file with the graph that it was written from.

    Attributes:
        kernels: which of the runtime's kernels ran.
        rows: one for each operator, in the order of execution.
        outputs: one for each output.
        samples: how many inputs were run.
        notes: what was done otherwise than asked, and why.
    """

    kernels: str
    rows: list[OperatorRow] = field(default_factory=list)
    outputs: list[OutputRow] = field(default_factory=list)
    samples: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every operator and every output is good enough."""
        return not self.problems()

    @property
    def first_different(self) -> OperatorRow | None:
        """The first operator that computes something else, even by one step."""
        return next((row for row in self.rows if _differs(row)), None)

    @property
    def worst(self) -> OperatorRow | None:
        """The operator that differs most when it is computed alone."""
        return max((row for row in self.rows if _differs(row)), key=_badness, default=None)

    @property
    def agreement(self) -> float:
        """The smallest fraction of agreeing values of any output."""
        return min((output.simulated.agreement for output in self.outputs), default=1.0)

    def problems(self) -> list[Problem]:
        """What is not good enough: operators in order, then outputs."""
        found = []
        for row in self.rows:
            failure = row.failure(self.kernels)
            if failure:
                found.append(Problem(failure, node=row.text or f"%{row.node}", source=row.source))
        return found + [Problem(text) for output in self.outputs if (text := output.failure())]

    def check(self) -> None:
        """Raise unless `ok`.

        Raises:
            VerifyError: lists every operator and output that is not good enough.
        """
        problems = self.problems()
        if problems:
            raise VerifyError(
                f"the file does not compute what the graph computes ({self.kernels} kernels)",
                problems=problems,
            )

    def summary(self) -> str:
        """The comparison in one line."""
        exact = sum(not _differs(row) for row in self.rows)
        several = "s" if self.samples != 1 else ""
        text = (
            f"{self.kernels} kernels, {self.samples} sample{several}: {exact} of "
            f"{len(self.rows)} operators agree exactly, outputs {_percent(self.agreement)}"
        )
        worst = self.worst
        return (
            text
            if worst is None
            else f"{text}; worst %{worst.node} ({difference_text(worst.alone)})"
        )

    def render(self, width: int = 120) -> str:
        """The comparison as plain text."""
        buffer = io.StringIO()
        Console(file=buffer, width=width, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"

    def __rich__(self) -> Group:
        """The comparison for a rich console."""
        notes = [Text(f"note: {note}", style="dim") for note in self.notes]
        problems = [Text("\n".join(problem.lines()), style="red") for problem in self.problems()]
        blank = Text("")
        tables = (self._operators(), blank, self._outputs(), blank)
        return Group(*tables, Text(self.summary()), *notes, *problems)

    def _operators(self) -> Table:
        table = _table("operator", "node", "type", "alone", "from the start")
        for row in self.rows:
            cells = (row.operator, f"%{row.node}", row.type)
            style = "red" if row.failure(self.kernels) else ""
            differences = (difference_text(row.alone), difference_text(row.chained))
            table.add_row(*map(Text, (*cells, *differences)), style=style)
        return table

    def _outputs(self) -> Table:
        table = _table("output", "type", "against the graph", "against the float model")
        for output in self.outputs:
            reference = output.reference
            text = (
                ""
                if reference is None
                else f"{reference.sqnr:.1f} dB, cosine {reference.cosine:.5f}"
            )
            cells = (output.name, output.type, difference_text(output.simulated), text)
            table.add_row(*map(Text, cells))
        return table


def difference_text(difference: Difference) -> str:
    """A difference in the fewest words.

    >>> difference_text(Difference(count=1000, equal=998, steps=1))
    '99.8 %, 1 step'
    """
    parts = [_percent(difference.agreement)]
    if difference.steps:
        parts.append(f"{difference.steps} step{'s' * (difference.steps > 1)}")
    if difference.relative:
        parts.append(f"{difference.relative:.1e}")
    return ", ".join(parts)


def _percent(fraction: float) -> str:
    return "100 %" if fraction == 1 else f"{min(fraction * 100, 99.999):.5g} %"


def _differs(row: OperatorRow) -> bool:
    return bool(row.mismatch or row.alone.steps or row.alone.relative)


def _badness(row: OperatorRow) -> tuple[bool, float, float]:
    size = max(row.alone.steps, row.alone.relative / FLOAT_TOLERANCE)
    return bool(row.mismatch), size, 1 - row.alone.agreement


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
