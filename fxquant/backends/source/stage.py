"""What a graph is at its stage, in words for the file, and what annotate decided for a line."""

from __future__ import annotations

import re

from torch.fx import GraphModule, Node

from fxquant.ir.source import source_of
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


def comment_of(node: Node) -> str | None:
    """Precision and reason of an annotated node, as they print in the graph.

    Other nodes are named as they are in this module: `%layer1_0_relu` is `relu` in `layer1.0`.
    """
    annotation = node.meta.get("annotation") or node.meta.get("note")
    if annotation is None:
        return None
    source = source_of(node)
    scope = "" if source is None or not source.module else source.module.replace(".", "_") + "_"
    return re.sub(rf"%(?:{re.escape(scope)})?(\w+)", r"\1", str(annotation))
