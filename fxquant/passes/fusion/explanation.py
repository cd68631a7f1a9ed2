"""Why a pattern does or does not match a graph, as text.

conv-hardswish does not match
  nearest  %hardswish = hardswish(%bn) : f32[1,4,8,8]
  from     model.py:12  return F.hardswish(self.bn(self.conv(x)))
  reached  %hardswish
  stopped  at %bn: the pattern has conv2d here, the graph a module
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule, Node

from fxquant.errors import InputError
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.passes.common_subexpressions import CommonSubexpressions
from fxquant.passes.functionalize import Functionalize
from fxquant.passes.fusion.canonical import root_key
from fxquant.passes.fusion.matcher import Attempt
from fxquant.passes.fusion.readings import Readings
from fxquant.passes.fusion.registry import Form, Fusion, fusion_named
from fxquant.passes.fusion.search import Place, Refusal, places
from fxquant.passes.pipeline import Pipeline


@dataclass(frozen=True)
class Nearest:
    """A partial match: the form, its root in the graph, and how far it came."""

    form: Form
    node: Node
    attempt: Attempt


def explain_match(pattern: str | Fusion, graph_module: GraphModule) -> str:
    """Where a fusion matches a graph, or the place that comes nearest and why it stopped there.

    Args:
        pattern: the name of a registered fusion.
        graph_module: a traced or functional graph.

    Raises:
        RegistrationError: there is no fusion of that name.
        InputError: the graph was not made by `trace`.
    """
    fusion = fusion_named(pattern) if isinstance(pattern, str) else pattern
    graph_module = _functional(graph_module)
    found, refused, nearest = _try(fusion, graph_module)
    if found:
        return "\n".join([f"{fusion.name} matches", *(_place(place) for place in found)])
    if refused:
        return "\n".join([f"{fusion.name} is refused", *(_refusal(item) for item in refused)])
    if nearest is None:
        ends = {str(form.pattern.outputs[0].target) for form in fusion.forms}
        return f"{fusion.name} does not match: the graph has no {' or '.join(sorted(ends))}"
    return f"{fusion.name} does not match\n{_nearest(nearest)}"


def _functional(graph_module: GraphModule) -> GraphModule:
    properties = state_of(graph_module).properties
    if "functional" in properties:
        return Pipeline((CommonSubexpressions(),))(graph_module)
    if "traced" not in properties:
        raise InputError("the graph was not made by trace", fix="call fxquant.trace(model, inputs)")
    return Pipeline((Functionalize(), CommonSubexpressions()))(graph_module)


def _try(fusion: Fusion, root: GraphModule) -> tuple[list[Place], list[Refusal], Nearest | None]:
    readings = Readings(root)
    found: list[Place] = []
    refused: list[Refusal] = []
    nearest: Nearest | None = None
    for node in root.graph.nodes:
        for form in fusion.forms:
            if node.op != "call_function" or root_key(node) != root_key(form.pattern.outputs[0]):
                continue
            attempt = Attempt()
            place = next(places(form, root, node, None, readings, attempt), None)
            if isinstance(place, Place):
                found.append(place)
            elif place is not None:
                refused.append(place)
            elif nearest is None or _distance(attempt) > _distance(nearest.attempt):
                nearest = Nearest(form, node, attempt)
    return found, refused, nearest


def _distance(attempt: Attempt) -> int:
    return len(attempt.matched.used)


def _place(place: Place) -> str:
    return "  " + str(place.match)


def _refusal(refusal: Refusal) -> str:
    lines = [f"  {refusal.match}", f"    why    {refusal.reason}"]
    source = source_text(refusal.match.outputs[0])
    return "\n".join([*lines, *([f"    from   {source}"] if source else [])])


def _nearest(nearest: Nearest) -> str:
    attempt = nearest.attempt
    used = sorted(node.name for node in attempt.matched.used)
    source = source_text(nearest.node)
    where = f"at %{attempt.node.name}: " if attempt.node is not None else ""
    lines = [
        ("nearest", format_node(nearest.node)),
        *([("from", source)] if source else []),
        ("reached", ", ".join("%" + name for name in used) or "nothing"),
        ("stopped", where + attempt.reason),
    ]
    return "\n".join(f"  {label:<8} {text}" for label, text in lines)
