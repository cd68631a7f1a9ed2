"""A graph for a backend that writes core operators as they are: every one must be in its table.

    %y = erf(%x) : f32[4]   ->   an error that names the line, where the table has no row for erf

What a backend legalizes need not be checked: its rules refuse what they cannot write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from fxquant.errors import Problem, UnsupportedOp
from fxquant.ir.aten import packet_name
from fxquant.ir.edit import get_attribute
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.registry import register_pass

ALWAYS = ("getitem", "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine")
"""What quantization and operators with several results bring along."""


@register_pass
@dataclass(frozen=True)
class CheckOperators(Pass):
    """%y = erf(%x)  ->  an error that names the line; what the backend has stays as it is.

    Attributes:
        backend: the name for the error.
        operators: the names of the operators that it has.
    """

    name: ClassVar[str] = "check-operators"
    requires: ClassVar[frozenset[str]] = frozenset({"functional"})

    backend: str = "backend"
    operators: tuple[str, ...] = ()

    def run(self, graph_module: GraphModule) -> PassResult:
        problems = [
            Problem(f"{self.backend} has no {called}", format_node(node), source_text(node))
            for node in graph_module.graph.nodes
            if (called := _called(graph_module, node)) not in (None, *self.operators, *ALWAYS)
        ]
        if problems:
            what = f"{self.backend} cannot express the graph"
            raise UnsupportedOp(what, problems=problems)
        return PassResult(graph_module, False)


def _called(root: GraphModule, node: Node) -> str | None:
    """The operator or module that a node calls."""
    if node.op == "call_function":
        return packet_name(node.target)
    if node.op != "call_module":
        return None
    kind = type(get_attribute(root, str(node.target)))
    return None if kind.__module__.startswith("fxquant.") else kind.__name__  # a stub
