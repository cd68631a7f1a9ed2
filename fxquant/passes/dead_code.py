"""Remove nodes whose result nobody reads.

    %a = relu(%x); %b = sigmoid(%x); return (%b)   ->   %b = sigmoid(%x); return (%b)

Inputs stay, also unread ones: they belong to the call signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

from fxquant.ir.edit import get_attribute
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Remove nodes without users.

    graph(%x):                                   graph(%x):
      %a = relu(%x)                         ->     %b = sigmoid(%x)
      %b = sigmoid(%x)                             return (%b)
      return (%b)
    """

    name: ClassVar[str] = "dead-code"
    requires: ClassVar[frozenset[str]] = frozenset({"functional"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in reversed(list(graph_module.graph.nodes)):
            if not node.users and _is_pure(graph_module, node):
                graph_module.graph.erase_node(node)
                modified = True
        return PassResult(graph_module, modified)


def _is_pure(root: GraphModule, node: Node) -> bool:
    if node.op in {"placeholder", "output"}:
        return False
    if node.op != "call_module":
        return True
    module = get_attribute(root, str(node.target))
    return not (isinstance(module, _BatchNorm) and module.training)
