"""Two graphs that should compute the same, run side by side: which node deviates first.

Nodes are matched by name, and where a pass fused or renamed, by value: a node whose value stands
in the other graph too, whatever it is called there and in whichever order its dimensions are
stored, is right. The culprit is the first node on the way to a wrong output all of whose inputs
are right.

Integers round, and every layer adds to what the layers before rounded away. So where integers are
compared with the reals they stand for, each value that agrees to within two steps is replaced by
the other graph's before the next operator reads it: every operator is judged on its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fxquant.passes.base import EXACT, Semantics
from fxquant.passes.instruments.deviation import (
    Deviation,
    deviation,
    is_quantized,
    largest_gap,
    magnitude,
    real,
)
from fxquant.passes.instruments.probe import (
    comparable_outputs,
    output_nodes,
    run_flat,
    run_nodes,
    unchanged,
)

STEPS = 2.0  # a kernel and torch may round to neighbors, in the operator and in its activation


@dataclass
class Comparison:
    """What came out.

    Attributes:
        gap: how far the outputs are apart.
        allowed: how far they may be, beyond the contract, because they are integers.
        agreeing: the nodes of the second graph whose value the first graph has too.
        values: the value of every node of the first graph, by name.
        gaps: the deviation of nodes that have the same name in both graphs.
    """

    gap: Deviation = field(default_factory=lambda: Deviation(0.0))
    allowed: float = 0.0
    agreeing: set[Node] = field(default_factory=set)
    values: dict[str, Any] = field(default_factory=dict)
    gaps: dict[Node, Deviation] = field(default_factory=dict)

    def within(self, semantics: Semantics) -> bool:
        """Whether the outputs are as near as the contract says."""
        return self.gap.within(semantics) or (not self.gap.what and self.gap.error <= self.allowed)


def compare(
    before: GraphModule,
    after: GraphModule,
    first: Sequence[Any],
    second: Sequence[Any],
    semantics: Semantics,
) -> Comparison:
    """How far the outputs of two graphs are apart, for inputs `first` and `second`."""
    if semantics.kind == "close" and _has_integers(after):
        return _run_matching(before, after, first, second, semantics, replace=True)
    expected = run_flat(before, first)
    found = comparable_outputs(after, run_flat(after, second), before)
    return Comparison(deviation(expected, found))


def first_deviating(
    before: GraphModule,
    after: GraphModule,
    first: Sequence[Any],
    second: Sequence[Any],
    semantics: Semantics,
) -> tuple[Node, Deviation] | None:
    """The first node of `after` that makes an output wrong, and how far it is off."""
    forced = semantics.kind == "close" and _has_integers(after)
    result = _run_matching(before, after, first, second, semantics, replace=forced)
    wrong = _on_the_way(after, result.agreeing)
    starts = [
        node
        for node in after.graph.nodes
        if node in wrong and not any(each in wrong for each in node.all_input_nodes)
    ]
    named = [node for node in after.graph.nodes if node in wrong and node in result.gaps]
    for node in (*named, *starts):
        return node, result.gaps.get(node, result.gap)
    return None


def _has_integers(graph_module: GraphModule) -> bool:
    kinds = (node.meta.get("type") for node in graph_module.graph.nodes)
    return any(getattr(kind, "quantization", None) is not None for kind in kinds)


def _on_the_way(after: GraphModule, agreeing: set[Node]) -> set[Node]:
    """The nodes that are not right and that a wrong output is computed from."""
    found: set[Node] = set()
    pending = [node for node in output_nodes(after) if isinstance(node, Node)]
    while pending:
        node = pending.pop()
        if node in agreeing or node in found or node.op in {"get_attr", "placeholder"}:
            continue
        found.add(node)
        pending.extend(node.all_input_nodes)
    return found


def _run_matching(
    before: GraphModule,
    after: GraphModule,
    first: Sequence[Any],
    second: Sequence[Any],
    semantics: Semantics,
    replace: bool,
) -> Comparison:
    expected = run_nodes(before, first)
    runner = _Matching(after, expected, EXACT if semantics.kind == "changes" else semantics)
    runner.replacing = replace
    with unchanged(after):
        outputs = runner.run(*second, enable_io_processing=False)
    returned = expected[next(node.name for node in before.graph.nodes if node.op == "output")]
    result = runner.result
    result.values = expected
    result.gap = deviation(returned, comparable_outputs(after, outputs, before))
    if replace:
        result.allowed = max(
            (_allowed(node, runner.slack, returned) for node in output_nodes(after)), default=0.0
        )
    return result


def _allowed(node: Any, slack: dict[Node, float], returned: Any) -> float:
    sizes = [magnitude(each) for each in _leaves(real(returned)) if each.is_floating_point()]
    step = slack.get(node, 0.0) if isinstance(node, Node) else 0.0
    return STEPS * step / (max(sizes, default=0.0) or 1.0)


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)


class _Matching(Interpreter):
    """Runs a graph and finds each of its values among those of another graph."""

    replacing = False

    def __init__(self, module: GraphModule, expected: dict[str, Any], semantics: Semantics) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.result = Comparison()
        self.slack: dict[Node, float] = {}
        self._expected = {name: real(value) for name, value in expected.items()}
        self._semantics = semantics
        self._by_sizes: dict[tuple[int, ...], list[Tensor]] = {}
        for value in self._expected.values():
            for leaf in _leaves(value):
                self._by_sizes.setdefault(tuple(sorted(leaf.shape)), []).append(leaf)

    def run_node(self, n: Node) -> Any:
        """The node's value, or the other graph's where that is the same."""
        value = super().run_node(n)
        if n.op in {"placeholder", "get_attr", "output"}:
            return value
        self.slack[n] = self._step(n, value)
        match = self._match(n.name, value, self.slack[n])
        if match is None:
            if n.name in self._expected:
                self.result.gaps[n] = deviation(self._expected[n.name], value)
            return value
        self.result.agreeing.add(n)
        return _as(value, match) if self.replacing and is_quantized(value) else value

    def _step(self, node: Node, value: Any) -> float:
        """One integer step of the value, or of the integers that a float is computed from."""
        if is_quantized(value):
            return float(value.scale.max())
        before = [each for each in node.all_input_nodes if each not in self.result.agreeing]
        return max((self.slack.get(each, 0.0) for each in before), default=0.0)

    def _match(self, name: str, value: Any, step: float) -> Any:
        found = real(value)
        if not isinstance(found, Tensor):
            same = name in self._expected and deviation(self._expected[name], found)
            return found if same and same.within(self._semantics) else None
        related = self._expected.get(name)
        others = self._by_sizes.get(tuple(sorted(found.shape)), [])
        for candidate in ([related] if isinstance(related, Tensor) else []) + others:
            for turned in _orders(candidate, found):
                if self._near(turned, found, step):
                    return turned
        return None

    def _near(self, wanted: Tensor, found: Tensor, step: float) -> bool:
        if wanted.dtype.is_floating_point != found.dtype.is_floating_point:
            return False
        if wanted.numel() == 0 or torch.equal(wanted, found):
            return True
        gap = largest_gap(wanted, found)
        steps = STEPS * step if self.replacing else 0.0
        return gap <= max(self._semantics.tolerance * magnitude(wanted), steps * 1.001)


def _orders(candidate: Tensor, like: Tensor) -> Iterator[Tensor]:
    """The tensor in the orders of dimensions in which it has the shape of another."""
    if candidate.shape == like.shape:
        yield candidate
    rank = candidate.dim()
    if rank < 3:
        if rank == 2 and candidate.T.shape == like.shape:
            yield candidate.T
        return
    last, first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
    usual = dict.fromkeys((last, first))
    rest = itertools.permutations(range(rank)) if rank < 4 else ()
    for order in dict.fromkeys((*usual, *rest)):
        turned = candidate.permute(*order)
        if turned.shape == like.shape:
            yield turned


def _as(value: Any, wanted: Tensor) -> Any:
    """The other graph's reals on the grid of a quantized value."""
    if value.axis is not None:
        return value
    limits = torch.iinfo(value.values.dtype)
    scaled = torch.round(wanted.double() / value.scale.double()) + value.zero_point
    return value._replace(values=scaled.clamp(limits.min, limits.max).to(value.values.dtype))
