"""Write a graph of the torch dialect in the core dialect: one spelling for each operation.

    %conv = Conv2d @conv(%x)               %conv = conv2d(%x, @conv.weight, @conv.bias)
    %view = .view(%conv, 1, -1)     ->      %view = reshape(%conv) {shape=[1,256]}
    %add = .add_(%view, 1)                  %add = add(%view) {other=1}
    return (%conv)                          %add_reshape = reshape(%add) {shape=[1,4,8,8]}
                                            return (%add_reshape)

The same kernels run on the same numbers in the same order, so results are bit-identical. Writes in
place become new values; every tensor that shared the memory reads the new value from then on. The
vocabulary is listed in docs/core_dialect.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Graph, GraphModule, Node
from torch.nn.modules.dropout import _DropoutNd

from fxquant.ir.edit import get_attribute
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.functional.dynamic import for_all_sizes
from fxquant.passes.functional.interpreter import Interpreter
from fxquant.passes.functional.modules import leave_shells
from fxquant.passes.functional.stubs import mark_outside
from fxquant.passes.registry import register_pass
from fxquant.tracing.dynamic.generalizer import dimensions_of


@register_pass
@dataclass(frozen=True)
class Functionalize(Pass):
    """Write every operation as a functional ATen operator.

    graph(%x):                                   graph(%x):
      %fc = Linear @fc(%x)                  ->     %fc = linear(%x, @fc.weight, @fc.bias)
      %relu = .relu_(%fc)                          %relu = relu(%fc)
      return (%relu)                               return (%relu)
    """

    name: ClassVar[str] = "functionalize"
    establishes: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        mark_outside(graph_module)
        if dimensions_of(graph_module):
            return PassResult(for_all_sizes(graph_module, _written), True)
        return PassResult(_written(graph_module), True)


def _written(graph_module: GraphModule) -> GraphModule:
    """The graph in the core dialect, for the sizes that its inputs have."""
    engine = Interpreter(graph_module).run()
    for path, module in engine.new_modules.items():
        graph_module.set_submodule(path, module)
    _remove_unread(graph_module, engine.graph)
    called = {str(node.target) for node in engine.graph.nodes if node.op == "call_module"}
    leave_shells(graph_module, called)
    graph_module.graph = engine.graph
    return graph_module


def _remove_unread(root: GraphModule, graph: Graph) -> None:
    """Remove nodes that nobody reads; modules with statistics of their own run all the same."""
    for node in reversed(graph.nodes):
        if not node.users and _is_pure(root, node):
            graph.erase_node(node)


def _is_pure(root: GraphModule, node: Node) -> bool:
    if node.op == "call_module":
        return isinstance(get_attribute(root, str(node.target)), _DropoutNd)
    return node.op in {"call_function", "get_attr"}
