"""Look for all fusions of a list in one walk over the graph.

Forms are indexed by the operator of their first output, the longest first, and every node of the
graph is laid under those of its own operator only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node

from fxquant.ir.aten import packet_name
from fxquant.passes.fusion.canonical import root_key
from fxquant.passes.fusion.group import group_of
from fxquant.passes.fusion.match import Match
from fxquant.passes.fusion.matcher import Attempt, Matcher, State
from fxquant.passes.fusion.pattern import Pattern
from fxquant.passes.fusion.readings import Readings
from fxquant.passes.fusion.registry import Form, Fusion, difference
from fxquant.passes.fusion.wildcards import Wildcard


@dataclass(frozen=True)
class Place:
    """A match that holds, with the form that matched and the graph to put there."""

    form: Form
    match: Match
    replacement: Pattern | None


@dataclass(frozen=True)
class Refusal:
    """A match that must not be fused, and why."""

    match: Match
    reason: str


class Search:
    """The forms of some fusions by the operator that ends them."""

    def __init__(self, fusions: Iterable[Fusion], root: GraphModule) -> None:
        self.root, self.readings = root, Readings(root)
        self.index: dict[object, list[Form]] = {}
        operators = {packet_name(node.target) for node in root.graph.nodes}
        wanted = [f for f in fusions if not f.needs or not operators.isdisjoint(f.needs)]
        forms = [form for fusion in wanted for form in fusion.forms]
        for form in sorted(forms, key=lambda form: -len(form.pattern.nodes)):
            self.index.setdefault(root_key(form.pattern.outputs[0]), []).append(form)

    def walk(self, order: dict[Node, float]) -> Iterator[Place]:
        """The places to fuse, from the end of the graph.

        Nodes may be replaced on the way: they leave `order`, and `readings` are cleared.
        """
        for node in reversed(list(order)):
            if node in order and node.op == "call_function":
                for form in self.index.get(self.readings.key(node), ()):
                    place = next(places(form, self.root, node, order, self.readings), None)
                    if isinstance(place, Place):
                        yield place
                        break


def places(
    form: Form,
    root: GraphModule,
    node: Node,
    order: dict[Node, float] | None = None,
    readings: Readings | None = None,
    attempt: Attempt | None = None,
) -> Iterator[Place | Refusal]:
    """What becomes of a form at one node: the place where it holds, or why it is refused."""
    matcher = Matcher(form.pattern, root, True, readings, attempt)
    refusal: Refusal | None = None
    for state in matcher.at(node):
        match = _match(form, root, state, order)
        found = _judge(form, match, readings, matcher.loosened)
        if isinstance(found, Place):
            yield found
            return
        refusal = refusal or found
    if refusal is not None:
        yield refusal


def _match(form: Form, root: GraphModule, state: State, order: dict[Node, float] | None) -> Match:
    pattern = form.pattern
    values: dict[str, Any] = dict(form.arguments)
    values |= {name: state.values[node] for name, node in pattern.inputs.items()}
    wild = (name for name, value in form.arguments.items() if isinstance(value, Wildcard))
    values |= {name: state.values[name] for name in wild}
    outputs = tuple(state.values[node] for node in pattern.outputs)
    if order is None:
        order = {node: number for number, node in enumerate(root.graph.nodes)}
    nodes = tuple(sorted(state.used, key=order.__getitem__))
    return Match(form.fusion.name, root, values, outputs, nodes)


def _judge(form: Form, match: Match, readings: Readings | None, loosened: bool) -> Place | Refusal:
    """Whether a match may be fused: outside readers, exact sizes, its check, the replacement."""
    reason = _outside(match) or (_inexact(form, match, readings) if loosened else None)
    if reason is None and form.fusion.check is not None:
        answer = form.fusion.check(match)
        reason = answer if isinstance(answer, str) else None if answer else "its check says no"
    if reason is not None:
        return Refusal(match, reason)
    if form.fusion.replace is None:
        return _judge_group(form, match)
    return _judge_replacement(form, match)


def _outside(match: Match) -> str | None:
    covered = set(match.nodes)
    for node in match.nodes:
        if node in match.outputs:
            continue
        for user in node.users:
            if user not in covered:
                return f"%{node.name} is read outside of the match too, by %{user.name}"
    return _circular(match, covered)


def _circular(match: Match, covered: set[Node]) -> str | None:
    """Several outputs: none of the inputs may be computed from one of them."""
    if len(match.outputs) == 1:
        return None
    seen: set[Node] = set()
    waiting = [user for node in match.nodes for user in node.users if user not in covered]
    while waiting:
        node = waiting.pop()
        if node in covered:
            return f"%{node.name} is computed from another output of the match"
        if node not in seen:
            seen.add(node)
            waiting.extend(node.users)
    return None


def _inexact(form: Form, match: Match, readings: Readings | None) -> str | None:
    """Why the pattern traced with the shapes of the match does not stand there."""
    try:
        exact = form.for_values(match.values)
    except Exception as error:
        return f"the pattern does not run on these shapes: {_first_line(error)}"
    attempt = Attempt()
    matcher = Matcher(exact, match.root, loose=False, readings=readings, attempt=attempt)
    for state in matcher.at(match.outputs[0]):
        if _same_inputs(match, exact, state):
            return None
    return f"with these shapes {attempt.reason}"


def _judge_group(form: Form, match: Match) -> Place | Refusal:
    if len(match.nodes) == 1 or any(group_of(node) is not None for node in match.nodes):
        return Refusal(match, "its nodes are in a group already")
    return Place(form, match, None)


def _judge_replacement(form: Form, match: Match) -> Place | Refusal:
    try:
        replacement = form.replacement(match.values)
    except Exception as error:
        return Refusal(match, f"the replacement does not run on these shapes: {_first_line(error)}")
    problem = difference(match.outputs, replacement.outputs)
    if problem is not None:
        return Refusal(match, f"the replacement {problem}")
    if _stands_already(match, replacement):
        return Refusal(match, "the replacement stands there already")
    return Place(form, match, replacement)


def _stands_already(match: Match, replacement: Pattern) -> bool:
    """Whether the match covers just what would be put there."""
    theirs = sorted(str(node.target) for node in match.nodes)
    if theirs != sorted(str(node.target) for node in replacement.nodes):
        return False
    matcher = Matcher(replacement, match.root, loose=False)
    return any(_same_inputs(match, replacement, s) for s in matcher.at(match.outputs[0]))


def _same_inputs(match: Match, pattern: Pattern, state: State) -> bool:
    inputs = {name: state.values.get(node) for name, node in pattern.inputs.items() if node.users}
    return all(match.values[name] is value for name, value in inputs.items())


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
