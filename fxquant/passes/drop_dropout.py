"""Remove dropout that is switched off.

    %drop = Dropout @drop(%x); relu(%drop)   ->   relu(%x)

In eval mode dropout is the identity; in train mode it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node
from torch.nn.modules.dropout import _DropoutNd

from fxquant.ir.edit import get_attribute
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass


@register_pass
@dataclass(frozen=True)
class DropDropout(Pass):
    """Remove dropout modules that are in eval mode.

    graph(%x):                                   graph(%x):
      %drop = Dropout @drop(%x)             ->     return (%x)
      return (%drop)
    """

    name: ClassVar[str] = "drop-dropout"
    requires: ClassVar[frozenset[str]] = frozenset({"functional"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        found = [node for node in graph_module.graph.nodes if _is_off(graph_module, node)]
        for node in found:
            source = node.args[0]
            assert isinstance(source, Node)
            node.replace_all_uses_with(source)
            graph_module.graph.erase_node(node)
        still = {str(node.target) for node in graph_module.graph.find_nodes(op="call_module")}
        for target in {str(node.target) for node in found} - still:
            graph_module.delete_submodule(target)
        return PassResult(graph_module, bool(found))


def _is_off(root: GraphModule, node: Node) -> bool:
    if node.op != "call_module":
        return False
    module = get_attribute(root, str(node.target))
    return isinstance(module, _DropoutNd) and not module.training
