"""Where regions of different precision meet: the borders that move the fewest bytes.

    conv !int8 -> mul ? -> max_pool ? -> erf !float32

`mul` and `max_pool` can compute in either, so the border may stand before, between or behind them.
It is cheapest where the value is smallest: behind the pool.

A value costs nothing where its writer and a reader store it alike. Otherwise one QUANTIZE or
DEQUANTIZE reads and writes it, once for all readers that want the same dtype: 4 + 1 bytes an
element between float32 and int8. Inputs and outputs of the graph are free: the file's own dtypes
decide there. For two dtypes one minimum cut finds the best of all choices; with more, every pair
of dtypes is cut in turn until nothing gets better (the swap moves of Boykov, Veksler and Zabih,
"Fast approximate energy minimization via graph cuts", 2001). Among equals each operator keeps what
was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.maximum_flow import INFINITE, SINK, SOURCE, Network
from fxquant.quant.constraints import annotation_of, is_float, is_getitem
from fxquant.quant.spec import Precision

FLOAT = "float32"
ELEMENT_BYTES = {FLOAT: 4, "int16": 2, "int8": 1, "uint8": 1, "int4": 1}
MOST_ROUNDS = 8

Dtypes = Sequence[str]


def dtype_of(precision: Precision) -> str:
    """The dtype in which an operator of that precision reads and writes values."""
    quantized = precision.activations if precision.quantized else None
    return FLOAT if quantized is None else quantized.dtype


def element_cost(source: str, target: str) -> int:
    """Bytes read and written to convert one element.

    >>> element_cost("float32", "int8"), element_cost("int8", "int16"), element_cost("int8", "int8")
    (5, 3, 0)
    """
    return 0 if source == target else ELEMENT_BYTES[source] + ELEMENT_BYTES[target]


@dataclass(frozen=True)
class Border:
    """One conversion.

    Attributes:
        value: what is converted.
        source, target: from which dtype to which.
        elements: of the value.
    """

    value: Node
    source: str
    target: str
    elements: int

    @property
    def size(self) -> int:
        """The bytes that it reads and writes."""
        return self.elements * element_cost(self.source, self.target)


def borders(graph_module: GraphModule) -> list[Border]:
    """The conversions of an annotated graph, those at its inputs and outputs left out."""
    pairs = ((node, annotation_of(node)) for node in graph_module.graph.nodes)
    chosen = {node: dtype_of(a.precision) for node, a in pairs if a is not None}
    return list(_borders(chosen))


def place_borders(
    options: Mapping[Node, Dtypes], together: Iterable[tuple[Node, Node]] = ()
) -> dict[Node, str]:
    """The dtype of each operator, so that the fewest bytes are converted.

    Args:
        options: what each operator can compute in, what was asked of it first.
        together: pairs of writer and reader that are better computed as one; what separates them
            costs the value's bytes once more.
    """
    problem = _Problem(options, together)
    return problem.solved()


def _borders(chosen: Mapping[Node, str]) -> Iterator[Border]:
    for node, source in chosen.items():
        wanted = dict.fromkeys(chosen[reader] for reader in _readers(node) if reader in chosen)
        for target in wanted:
            if target != source:
                yield Border(node, source, target, _elements(node))


def _readers(node: Node) -> list[Node]:
    """What reads a value; parts of several results are no readers, they are those results."""
    return [] if not is_float(node) else [u for u in node.users if not is_getitem(u)]


def _elements(node: Node) -> int:
    value = node.meta["val"]
    return value.numel() if isinstance(value, torch.Tensor) else 0


@dataclass(eq=False)
class _Variable:
    """Nodes that must be stored alike: an operator and the parts of its result."""

    options: Dtypes
    chosen: str = field(init=False)

    def __post_init__(self) -> None:
        self.chosen = self.options[0]


class _Problem:
    def __init__(
        self, options: Mapping[Node, Dtypes], together: Iterable[tuple[Node, Node]]
    ) -> None:
        self.variables: dict[Node, _Variable] = {}
        for node, dtypes in options.items():
            self.variables[node] = self._joined(node, dtypes) or _Variable(dtypes)
        self.values: list[tuple[_Variable, list[_Variable], int]] = []
        for node in options:
            readers = [self.variables[r] for r in _readers(node) if r in self.variables]
            if readers:
                self.values.append((self.variables[node], readers, _elements(node)))
        self.together = [
            (self.variables[first], self.variables[second], _elements(first))
            for first, second in together
        ]
        # Bytes count first; one unit for each operator that does not get what was asked.
        self.unit = 1 + len(set(self.variables.values()))

    def _joined(self, node: Node, dtypes: Dtypes) -> _Variable | None:
        """The variable of the operator of which a node is a part, if both can be alike."""
        source = node.args[0] if is_getitem(node) else None
        whole = self.variables.get(source) if isinstance(source, Node) else None
        common = [] if whole is None else [d for d in whole.options if d in dtypes]
        if whole is None or not common:
            return None
        whole.options = common
        if whole.chosen not in common:
            whole.chosen = common[0]
        return whole

    def solved(self) -> dict[Node, str]:
        free = list(dict.fromkeys(v for v in self.variables.values() if len(v.options) > 1))
        dtypes = sorted({d for v in free for d in v.options})
        # A cut decides between two dtypes at once; among more, several beginnings help.
        starts: list[str | None] = [None, *(dtypes if len(dtypes) > 2 else ())]
        answers = [self._descended(free, dtypes, start) for start in starts]
        _, best = min(answers, key=lambda answer: answer[0])
        for variable, dtype in best.items():
            variable.chosen = dtype
        return {node: variable.chosen for node, variable in self.variables.items()}

    def _descended(
        self, free: list[_Variable], dtypes: list[str], start: str | None
    ) -> tuple[int, dict[_Variable, str]]:
        """What swaps make of a beginning: what was asked, or one dtype wherever it can be."""
        for variable in free:
            variable.chosen = next((d for d in variable.options if d == start), variable.options[0])
        least = self._cost(free)
        for _ in range(MOST_ROUNDS):
            before = least
            for pair in combinations(dtypes, 2) if least else ():
                least = self._swap(free, pair, least)
            if least == before:
                break
        return least, {variable: variable.chosen for variable in free}

    def _cost(self, free: Iterable[_Variable]) -> int:
        """All bytes, and what was not granted."""
        total = 0
        for writer, readers, elements in self.values:
            wanted = {reader.chosen for reader in readers}
            total += elements * sum(element_cost(writer.chosen, dtype) for dtype in wanted)
        for first, second, elements in self.together:
            total += elements * element_cost(first.chosen, second.chosen)
        return self.unit * total + sum(v.chosen != v.options[0] for v in free)

    def _swap(self, free: Iterable[_Variable], pair: tuple[str, str], least: int) -> int:
        """Choose anew between two dtypes wherever one of them is chosen and both can be."""
        involved = [v for v in free if v.chosen in pair and set(pair) <= set(v.options)]
        cut = _Cut(pair, involved, self.unit)
        for writer, readers, elements in self.values:
            cut.add_value(writer, readers, elements)
        for first, second, elements in self.together:
            cut.add_pair(first, second, elements)
        chosen = cut.solved()
        before = {v: v.chosen for v in involved}
        for variable, dtype in chosen.items():
            variable.chosen = dtype
        cost = self._cost(free)
        if cost < least:
            return cost
        for variable, dtype in before.items():
            variable.chosen = dtype
        return least


class _Cut:
    """The choice between two dtypes as a network: the first on the source's side."""

    def __init__(self, pair: tuple[str, str], involved: Iterable[_Variable], unit: int) -> None:
        self.pair, self.unit = pair, unit
        self.network = Network()
        self.places = {variable: self.network.add_node() for variable in involved}
        for variable, place in self.places.items():
            first, second = (d == variable.options[0] for d in pair)
            if first:
                self.network.add_edge(SOURCE, place, 1)
            if second:
                self.network.add_edge(place, SINK, 1)

    def _place(self, variable: _Variable) -> int | None:
        """Its place in the network; None where it has a third dtype."""
        fixed = dict(zip(self.pair, (SOURCE, SINK), strict=True)).get(variable.chosen)
        return self.places.get(variable, fixed)

    def add_value(self, writer: _Variable, readers: Iterable[_Variable], elements: int) -> None:
        """What a value costs by its writer's side and by those of its readers."""
        places = {self._place(reader) for reader in readers}
        inside = sorted(place for place in places if place is not None)
        others = {r.chosen for r in readers if self._place(r) is None}
        for side, dtype in enumerate(self.pair):
            self._wanted(writer, inside, side, elements)
            for other in others if writer in self.places else ():
                self._alone(self.places[writer], side, elements * element_cost(dtype, other))

    def _wanted(self, writer: _Variable, inside: list[int], side: int, elements: int) -> None:
        """Cost where some reader is on one side and the writer is not."""
        place = self._place(writer)
        other = self.pair[1 - side] if place is not None else writer.chosen
        capacity = self.unit * elements * element_cost(other, self.pair[side])
        outside = (SINK, SOURCE)[side] if place is None else place
        if not inside or not capacity or inside == [outside]:
            return
        some = self.network.add_node()
        for reader in inside:
            self._edge(side, reader, some, INFINITE)
        self._edge(side, some, outside, capacity)

    def _edge(self, side: int, tail: int, head: int, capacity: int) -> None:
        """An edge that is cut where the tail is on that side and the head is not."""
        ends = (tail, head) if side == 0 else (head, tail)
        self.network.add_edge(*ends, capacity)

    def _alone(self, place: int, side: int, cost: int) -> None:
        """A cost of one variable for being on a side."""
        self._edge(side, place, (SINK, SOURCE)[side], self.unit * cost)

    def add_pair(self, first: _Variable, second: _Variable, elements: int) -> None:
        """A cost for being apart."""
        self.add_value(first, [second], elements)

    def solved(self) -> dict[_Variable, str]:
        sink = self.network.sink_side()
        return {v: self.pair[place in sink] for v, place in self.places.items()}
