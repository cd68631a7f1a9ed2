"""Lay a pattern over a graph, from a root upwards, with every order of the operands.

Matching is a search: each function yields the states in which the two sides agree, and the caller
goes on from each. A state says which node of the graph each node of the pattern stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from fxquant.ir.aten import is_aten, overload, packet_name
from fxquant.ir.edit import tensor_at
from fxquant.ir.printer import format_argument
from fxquant.passes.fusion.canonical import (
    COMMUTATIVE,
    Clamp,
    Factor,
)
from fxquant.passes.fusion.pattern import Pattern
from fxquant.passes.fusion.readings import Readings
from fxquant.passes.fusion.wildcards import SEQUENCES, Hole, is_number, same_literal, same_number


class State(NamedTuple):
    """What is settled: values of pattern nodes and wildcards, and the graph's nodes used up."""

    values: dict[Node | str, Any]
    used: frozenset[Node] = frozenset()

    def bind(self, key: Node | str, value: Any) -> State:
        """With one more value."""
        return State({**self.values, key: value}, self.used)

    def use(self, *nodes: Node) -> State:
        """With more nodes used up."""
        return State(self.values, self.used.union(nodes))


@dataclass
class Attempt:
    """The farthest that matching came, for explanations."""

    matched: State = field(default_factory=lambda: State({}))
    node: Node | None = None
    reason: str = ""

    def note(self, state: State, node: Node | None, reason: str) -> None:
        """Keep a failure if nothing came farther."""
        if not self.reason or len(state.used) > len(self.matched.used):
            self.matched, self.node, self.reason = state, node, reason


class Matcher:
    """One pattern over one graph.

    Args:
        pattern: the traced pattern.
        root: the graph.
        loose: accept any size, dimension or index (the pattern was traced with other shapes).
        readings: how the graph's nodes read, where known from other patterns.
        attempt: keeps why matching stopped.
    """

    def __init__(
        self,
        pattern: Pattern,
        root: GraphModule,
        loose: bool,
        readings: Readings | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        self.pattern, self.root, self.loose, self.attempt = pattern, root, loose, attempt
        self.loosened = False
        self._here: Node | None = None
        self._theirs, self._ours = readings or Readings(root), pattern.readings

    def at(self, node: Node) -> Iterator[State]:
        """The ways in which the pattern's first output is this node."""
        for state in self._node(self.pattern.outputs[0], node, State({})):
            yield from self._outputs(1, state)

    def _outputs(self, number: int, state: State) -> Iterator[State]:
        if number == len(self.pattern.outputs):
            yield state
            return
        wanted = self.pattern.outputs[number]
        if wanted in state.values:
            yield from self._outputs(number + 1, state)
            return
        for node in _readers(state, len(self.pattern.nodes)):
            if self._theirs.key(node) == self._ours.key(wanted) and node not in state.used:
                for found in self._node(wanted, node, state):
                    yield from self._outputs(number + 1, found)
        self._fail(state, None, f"no reader of the match is the pattern's output {number}")

    def _fail(self, state: State, node: Any, reason: str, *values: Any) -> None:
        if self.attempt is not None:
            node = node if isinstance(node, Node) else self._here
            self.attempt.note(state, node, reason.format(*map(format_argument, values)))

    def _value(self, wanted: Any, found: Any, state: State) -> Iterator[State]:
        """An argument: a value, a wildcard, a list or a literal."""
        if isinstance(wanted, Node):
            yield from self._operand(wanted, found, state)
        elif isinstance(wanted, Hole):
            yield from self._hole(wanted, found, state)
        elif isinstance(wanted, SEQUENCES) and isinstance(found, SEQUENCES):
            if len(wanted) == len(found):
                yield from self._all(list(zip(wanted, found, strict=True)), state)
            else:
                self._fail(state, found, f"{len(found)} values stand where {len(wanted)} should")
        else:
            number = self._theirs.scalar(found) if isinstance(found, Node) else found
            if same_literal(wanted, number):
                yield state
            else:
                self._fail(state, found, "the pattern has {}, the graph {}", wanted, found)

    def _all(self, pairs: Sequence[tuple[Any, Any]], state: State) -> Iterator[State]:
        if not pairs:
            yield state
            return
        for found in self._value(*pairs[0], state):
            yield from self._all(pairs[1:], found)

    def _hole(self, hole: Hole, found: Any, state: State) -> Iterator[State]:
        value = self._theirs.scalar(found) if isinstance(found, Node) else found
        if not hole.name:
            self.loosened = True
            yield state
        elif isinstance(value, Node) or value is None or not hole.kind.accepts(value):
            self._fail(state, found, f"{{}} is no {hole.kind.title} for {hole.name}", found)
        elif hole.name in state.values and not same_literal(state.values[hole.name], value):
            known = state.values[hole.name]
            self._fail(state, found, f"{hole.name} is {{}} already, here it is {{}}", known, found)
        else:
            yield state.bind(hole.name, value)

    def _operand(self, wanted: Node, found: Any, state: State) -> Iterator[State]:
        if not isinstance(found, Node):
            self._unfit(wanted, found, state, "is a value, the graph has the literal {}", found)
        elif wanted in state.values:
            known = state.values[wanted]
            if _same_value(known, found):
                yield state
            else:
                self._unfit(wanted, found, state, "is {} already, here it is {}", known, found)
        elif wanted.op == "placeholder":
            if _is_float(wanted) <= _is_float(found):
                yield state.bind(wanted, found)
            else:
                self._unfit(wanted, found, state, "is no floating-point tensor")
        elif wanted.op == "get_attr":
            yield from self._constant(wanted, found, state)
        else:
            yield from self._node(wanted, found, state)

    def _unfit(self, wanted: Node, found: Any, state: State, reason: str, *values: Any) -> None:
        if self.attempt is not None:
            self._fail(state, found, f"{self.pattern.name(wanted)} {reason}", *values)

    def _constant(self, wanted: Node, found: Node, state: State) -> Iterator[State]:
        ours, theirs = self._ours.scalar(wanted), self._theirs.scalar(found)
        if ours is not None and theirs is not None:
            same = same_number(ours, theirs)
        elif found.op == "get_attr":
            first, second = tensor_at(self.pattern.root, wanted), tensor_at(self.root, found)
            same = first.shape == second.shape and torch.equal(first, second)
        else:
            same = False
        if same:
            yield state.bind(wanted, found)
        else:
            self._fail(state, found, "a constant of the pattern has another value in the graph")

    def _node(self, wanted: Node, found: Node, state: State) -> Iterator[State]:
        """The ways in which an operator of the graph is one of the pattern."""
        matched = False
        self._here = found
        for after in self._spellings(wanted, found, state):
            matched = True
            yield after.bind(wanted, found)
        if not matched:
            self._mismatch(wanted, found, state)

    def _spellings(self, wanted: Node, found: Node, state: State) -> Iterator[State]:
        if found.op != "call_function" or self._ours.key(wanted) != self._theirs.key(found):
            if self._ours.is_open_product(wanted):
                yield from self._product(wanted, found, state)
        elif found not in state.used:
            yield from self._plain(wanted, found, state)
            yield from self._clamp(wanted, found, state)
            yield from self._shift(wanted, found, state)
            yield from self._product(wanted, found, state)

    def _mismatch(self, wanted: Node, found: Node, state: State) -> None:
        if self.attempt is not None and wanted.target != found.target:
            names = packet_name(wanted.target), _title(found)
            self._fail(state, found, "the pattern has {} here, the graph {}".format(*names))

    def _plain(self, wanted: Node, found: Node, state: State) -> Iterator[State]:
        """The same operator with the same arguments."""
        if wanted.target != found.target:
            return
        state = state.use(found)
        if not is_aten(wanted):
            yield from self._all(list(zip(wanted.args, found.args, strict=True)), state)
            return
        ours, theirs = self._ours.arguments(wanted), self._theirs.arguments(found)
        sizes = _size_arguments(overload(wanted)) if self.loose else frozenset()
        pairs = []
        for name, value in ours.items():
            if name in sizes and _are_sizes(value) and _are_sizes(theirs[name]):
                self.loosened = True
            else:
                pairs.append((value, theirs[name]))
        yield from self._all(pairs, state)
        if wanted.target in COMMUTATIVE and isinstance(pairs[1][1], Node):
            (first, left), (second, right), *rest = pairs
            yield from self._all([(first, right), (second, left), *rest], state)

    def _clamp(self, wanted: Node, found: Node, state: State) -> Iterator[State]:
        """Another spelling of the same clamp."""
        ours, theirs = self._ours.clamps(wanted), self._theirs.clamps(found)
        for mine in ours:
            for other in theirs:
                yield from self._one_clamp(mine, other, state.use(*other.opened))

    def _one_clamp(self, mine: Clamp, other: Clamp, state: State) -> Iterator[State]:
        bounds = [(mine.low, other.low), (mine.high, other.high)]
        for after in self._all(bounds, state):
            yield from self._value(mine.value, other.value, after)

    def _shift(self, wanted: Node, found: Node, state: State) -> Iterator[State]:
        """A literal added or subtracted."""
        ours, theirs = self._ours.shift(wanted), self._theirs.shift(found)
        if ours is None or theirs is None:
            return
        for after in self._value(ours.amount, ours.sign * theirs.amount, state.use(found)):
            yield from self._value(ours.value, theirs.value, after)

    def _product(self, wanted: Node, found: Node, state: State) -> Iterator[State]:
        """The same factors in another order."""
        if not self._ours.is_product(wanted):
            return
        ours, theirs = self._ours.product(wanted), self._theirs.product(found)
        if len(ours.factors) != len(theirs.factors) or len(ours.holes) > 1:
            self._fail(state, found, "the graph multiplies other values")
            return
        try:
            amount = theirs.constant / ours.constant
        except ZeroDivisionError:
            return
        state = state.use(*theirs.opened)
        # Operators first: they tell a wrong assignment sooner than inputs, which take anything.
        factors = sorted(ours.factors, key=lambda factor: factor.value.op == "placeholder")
        if ours.holes:
            hole, sign = ours.holes[0]
            starts = self._hole(hole, amount if sign == 1 or not amount else 1 / amount, state)
        elif same_number(1.0, amount):
            starts = iter((state,))
        else:
            reason = "the pattern multiplies with {}, the graph with {}"
            self._fail(state, found, reason, ours.constant, theirs.constant)
            return
        for start in starts:
            yield from self._factors(factors, theirs.factors, start)

    def _factors(
        self, wanted: Sequence[Factor], found: Sequence[Factor], state: State
    ) -> Iterator[State]:
        if not wanted:
            yield state
            return
        first, *rest = wanted
        tried: set[Node] = set()
        for number, factor in enumerate(found):
            if factor.exponent == first.exponent and factor.value not in tried:
                tried.add(factor.value)
                others = [*found[:number], *found[number + 1 :]]
                for after in self._operand(first.value, factor.value, state):
                    yield from self._factors(rest, others, after)


def _readers(state: State, depth: int) -> list[Node]:
    """The nodes within reach below the bound values."""
    bound = [value for value in state.values.values() if isinstance(value, Node)]
    level, found = bound, dict.fromkeys(bound)
    for _ in range(depth):
        level = [user for node in level for user in node.users if user not in found]
        found.update(dict.fromkeys(level))
    return [node for node in found if node.op == "call_function"]


def _same_value(first: Any, second: Node) -> bool:
    if first is second:
        return True
    both = isinstance(first, Node) and first.op == second.op == "get_attr"
    return both and first.target == second.target


def _title(node: Node) -> str:
    texts = {"placeholder": "an input", "get_attr": "a constant", "call_module": "a module"}
    return texts.get(node.op) or packet_name(node.target)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


@cache
def _size_arguments(target: OpOverload) -> frozenset[str]:
    """The arguments that are sizes, dimensions or indices, as opposed to numbers."""
    arguments = target._schema.arguments
    return frozenset(a.name for a in arguments if "int" in str(a.type).lower())


def _are_sizes(value: Any) -> bool:
    items = value if isinstance(value, SEQUENCES) else (value,)
    return all(is_number(item) for item in items)


__all__ = ["Attempt", "Matcher", "State"]
