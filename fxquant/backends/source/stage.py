"""What a graph is at its stage, in words for the file, and what annotate decided for a line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch.fx import GraphModule, Node

from fxquant.ir.aten import packet_name
from fxquant.ir.state import state_of

# The first property that holds says what the graph is.
STAGES = (
    ("frozen", "quantized, every scale a constant"),
    ("observed", "prepared, with a FakeQuantize at each quantized value"),
    ("annotated", "annotated: behind each line what it computes in, and why"),
    ("functional", "the core dialect"),
    ("classic", "with stubs and modules for quantization"),
    ("traced", "as traced"),
)


def stage_of(graph_module: GraphModule) -> str:
    """The stage in words."""
    properties = state_of(graph_module).properties
    return next((words for name, words in STAGES if name in properties), "as given")


# Roles of results as they print in a graph, and what a reader of the file is told.
ROLES = (
    (re.compile(r" carried\(\w+\)$"), ", moves values"),
    (re.compile(r" same\(\w+\)$"), ", on the grid of its input"),
    (re.compile(r" fixed$"), ", on a fixed grid"),
)


def comment_of(node: Node) -> str | None:
    """Precision and reason of an annotated node, other nodes named by what they compute.

    "int8 fused into %layer1_0_relu"  ->  "int8, one with the relu behind it"
    "int8 carried(self)"              ->  "int8, moves values"
    """
    decision = node.meta.get("annotation") or node.meta.get("note")
    if decision is None:
        return None
    names = {each.name: each for each in _around(node)}
    fused = names.get(getattr(decision, "fused_into", None) or "")
    if fused is not None:
        return f"{decision.precision}, one with the {_operator(fused)} behind it"
    text = re.sub(
        r"%(\w+)", lambda match: _operator(names.get(match[1])) or match[1], str(decision)
    )
    for role, words in ROLES:
        text = role.sub(words, text)
    return text


def _around(node: Node) -> Iterator[Node]:
    """Whom a decision may speak of: readers, operands, and what those are made of."""
    yield from node.users
    for operand in node.all_input_nodes:
        yield operand
        yield from operand.all_input_nodes


def _operator(node: Node | None) -> str:
    """What a node computes, in a word; empty for what is no function."""
    return "" if node is None or node.op != "call_function" else packet_name(node.target)
