"""A configuration as a file for a person: every node, its precision, and why.

    nodes:
      stem_0: int8       # conv2d f32[1,16,8,8] in stem.0
      # stem_1: int8     # relu f32[1,16,8,8] in stem.1; ends stem_0
      erf: float32       # erf f32[1,16,8,8] in act; tflite has no int8 kernel for aten.erf
      # flatten: int8    # reshape f32[1,1024]; follows what it moves

Lines of operators that compute can be edited. What is fused into one, or only moves values, follows
it and stands in comments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.fx import GraphModule, Node

from fxquant.errors import ConfigError
from fxquant.ir.printer import format_type
from fxquant.ir.source import source_of
from fxquant.quant.constraints import Annotation, annotation_of, is_getitem, operator_name

HEAD = """\
# What every operator computes in, for {target}. Edit the precision of a line and run again:
#     QuantConfig.from_yaml(Path("this file")), or fxquant convert … --config "this file"
# Lines in comments follow the operators around them.
"""


class _Line(NamedTuple):
    """One node of the listing."""

    name: str
    precision: str
    facts: str
    follows: bool


def listing(graph_module: GraphModule) -> str:
    """The `nodes:` part of a configuration file.

    Raises:
        ConfigError: nothing was decided for the graph yet.
    """
    lines = list(_lines(graph_module))
    if not lines:
        raise ConfigError(
            "nothing says what the operators of the graph compute in",
            fix="give what prepare(model, …) returned, or use write_config(model, …)",
        )
    texts = [f"{'# ' if line.follows else ''}{line.name}: {line.precision}" for line in lines]
    width = max(map(len, texts))
    body = [f"  {text:<{width}}  # {line.facts}" for text, line in zip(texts, lines, strict=True)]
    return "\n".join(["nodes:", *body]) + "\n"


def _lines(graph_module: GraphModule) -> Iterator[_Line]:
    ends: dict[str, str] = {}
    for node in graph_module.graph.nodes:
        annotation = annotation_of(node)
        if annotation is None:
            continue
        if annotation.fused_into is not None:
            ends[annotation.fused_into] = ends.get(node.name, node.name)
        why = _why(node, annotation, ends.get(node.name))
        facts = f"{operator_name(node, graph_module)} {format_type(node)}".strip() + _where(node)
        follows = _follows(graph_module, node, annotation, ends)
        shown = f"{facts}; {why}" if why else facts
        yield _Line(node.name, annotation.precision.name, shown, follows)


def _follows(root: GraphModule, node: Node, annotation: Annotation, ends: dict[str, str]) -> bool:
    """Whether a node has no precision of its own."""
    moves = annotation.output.moves or annotation.reason.startswith("moves")
    return moves or is_getitem(node) or node.name in ends


def _why(node: Node, annotation: Annotation, ended: str | None) -> str:
    if ended is not None:
        return f"ends {ended}"
    if annotation.output.moves:
        return "follows what it moves"
    return "" if annotation.reason == "default" else " ".join(annotation.reason.split())


def _where(node: Node) -> str:
    source = source_of(node)
    return f" in {source.path}" if source is not None and source.path else ""
