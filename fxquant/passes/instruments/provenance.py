"""Where a node comes from: the user's line, and the passes that made or changed it.

%conv = conv2d(%x, @conv.weight, @conv.bias) {padding=[1,1]} : f32[1,4,8,8]
  from   model.py:41  x = self.conv(x)  (in stem)
  made   functionalize, fuse-conv-bn
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from fxquant.errors import InputError
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text


def explain_node(node: Node | str, graph_module: GraphModule | None = None) -> str:
    """Where a node comes from, as text.

    Args:
        node: the node, or its name.
        graph_module: the graph that a name is looked up in; not needed for a node.

    Raises:
        InputError: no node has that name.
    """
    found = _find(node, graph_module) if isinstance(node, str) else node
    root = graph_module or found.graph.owning_module
    passes = ", ".join(found.meta.get("passes", ())) or "no pass: it is as it was traced"
    lines = [
        format_node(found, root),
        f"  from   {source_text(found) or 'no line of the model: a pass made it'}",
        f"  made   {passes}",
    ]
    return "\n".join(lines)


def _find(name: str, graph_module: GraphModule | None) -> Node:
    if graph_module is None:
        raise InputError(f"the name {name!r} alone says no graph", fix="pass the graph_module too")
    nodes: list[Node] = list(graph_module.graph.nodes)
    for node in nodes:
        if node.name == name.removeprefix("%"):
            return node
    shown = ", ".join(node.name for node in nodes[:12])
    raise InputError(f"the graph has no node named {name!r}", fix=f"it has {shown}, …")
