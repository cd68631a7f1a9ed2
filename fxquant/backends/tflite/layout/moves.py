"""The best forms, by minimum cuts.

A *move* proposes another form to some operators at once, and finds by one minimum cut which of them
should accept, so that the transposed bytes are least: the optimum of all 2^n answers. For a usual
convolutional network one move decides everything. A value that several readers want in one layout
is transposed once for all of them, and so it is counted.

The cut's source side keeps its form, its sink side accepts. Within one family no cost depends on
two operators in a way that a cut cannot express; between families it may, and is then counted as if
it had to be paid in any case. So the true cost is compared before a move is kept: it never grows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fxquant.ir.maximum_flow import INFINITE, SINK, SOURCE, Network

from .families import Proposal, proposals
from .layouts import Layout
from .operators import Operator
from .problem import End, Problem, Value

MOST_ROUNDS = 4


def solve(problem: Problem) -> None:
    """Give every operator its best form."""
    offered = proposals(problem)
    settled: dict[Operator, frozenset[Layout]] = {}
    for _ in range(MOST_ROUNDS):
        better = False
        for proposal in offered:
            changes = {op: form for op, form in proposal.items() if op.form != form}
            pairs = {op: frozenset((op.form, form)) for op, form in changes.items()}
            if all(settled.get(op) == pair for op, pair in pairs.items()):
                continue
            better |= _move(problem, changes)
            settled = pairs
        if not better:
            return


def _move(problem: Problem, changes: Proposal) -> bool:
    """Let each operator accept or refuse; whether that made the graph cheaper."""
    values = dict.fromkeys(value for operator in changes for value, _ in problem.ends[operator])
    accepted = _Cut(changes).solve(values)
    if not accepted:
        return False
    before = sum(value.total() for value in values)
    old = {operator: operator.form for operator in accepted}
    for operator in accepted:
        operator.form = changes[operator]
    if sum(value.total() for value in values) < before:
        return True
    for operator, form in old.items():
        operator.form = form
    return False


@dataclass
class _Cut:
    """The network of one move."""

    changes: Proposal
    network: Network = field(default_factory=Network)
    nodes: dict[Operator, int] = field(default_factory=dict)

    def solve(self, values: Iterable[Value]) -> list[Operator]:
        """The operators that accept."""
        self.nodes = {operator: self.network.add_node() for operator in self.changes}
        for value in values:
            self._add(value)
        accepting = self.network.sink_side()
        return [operator for operator, node in self.nodes.items() if node in accepting]

    def _add(self, value: Value) -> None:
        """What a value costs: for each layout, if a reader wants it and the writer has another."""
        written = self._layouts(value.writer)
        wanted: dict[Layout, tuple[list[int], list[int]]] = {}
        always: set[Layout] = set()
        for reader in value.readers:
            kept, new = self._layouts(reader)
            if kept == new:
                always.add(kept)
                continue
            for layout, side in ((kept, 0), (new, 1)):
                wanted.setdefault(layout, ([], []))[side].append(self.nodes[reader.operator])
        writer = self.nodes.get(value.writer.operator, SOURCE)
        for layout in always | wanted.keys():
            if written == (layout, layout):
                continue
            price = max(value.cost(source, layout) for source in written)
            keeping, accepting = ([], []) if layout in always else wanted[layout]
            if layout in always:
                self._add_fixed(writer, written, layout, price)
            if accepting:
                # Paid if one accepts, unless the writer accepts too and then writes this layout.
                start = writer if written[1] == layout else SOURCE
                self._add_any(start, accepting, price, forward=True)
            if keeping:
                end = writer if written[0] == layout else SINK
                self._add_any(end, keeping, price, forward=False)

    def _layouts(self, end: End) -> tuple[Layout, Layout]:
        """The layouts at an end if its operator keeps its form, and if it accepts."""
        kept = end.operator.form
        return end.layout(kept), end.layout(self.changes.get(end.operator, kept))

    def _add_fixed(
        self, writer: int, written: tuple[Layout, Layout], layout: Layout, price: int
    ) -> None:
        """A layout that is wanted in any case: paid unless the writer has it."""
        if written[0] == layout:
            self.network.add_edge(SOURCE, writer, price)
        elif written[1] == layout:
            self.network.add_edge(writer, SINK, price)

    def _add_any(self, end: int, readers: list[int], price: int, *, forward: bool) -> None:
        """One price, paid if any of the readers stands on the other side than `end`."""
        gate = readers[0]
        if len(readers) > 1:
            gate = self.network.add_node()
            for reader in readers:
                self._directed(gate, reader, INFINITE, forward)
        self._directed(end, gate, price, forward)

    def _directed(self, tail: int, head: int, capacity: int, forward: bool) -> None:
        if forward:
            self.network.add_edge(tail, head, capacity)
        else:
            self.network.add_edge(head, tail, capacity)
