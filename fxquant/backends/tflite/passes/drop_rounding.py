"""Let activations be float32 in the file although the core graph rounds them.

    %y_q_bfloat16 = _to_copy(%y) {dtype=bf16}           relu(%y)
    %y_q = _to_copy(%y_q_bfloat16) {dtype=f32}    ->
    relu(%y_q)

No kernel of the runtime computes matrix products in bfloat16, and a CAST there and back at every
value is slow. Constants keep their rounding, which costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten
from fxquant.ir.edit import is_attribute
from fxquant.ir.state import state_of
from fxquant.passes.base import CHANGES, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass

CAST = aten._to_copy.default
KEPT_BY = 'options={"round_activations": True} keeps them'


@register_pass
@dataclass(frozen=True)
class DropRounding(Pass):
    """%q = _to_copy(_to_copy(%y) {dtype=bf16}) {dtype=f32}  ->  %y"""

    name: ClassVar[str] = "drop-rounding"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = CHANGES

    def run(self, graph_module: GraphModule) -> PassResult:
        pairs = [node for node in graph_module.graph.nodes if _is_rounding(node)]
        for node in pairs:
            narrow = node.all_input_nodes[0]
            node.replace_all_uses_with(narrow.all_input_nodes[0])
            graph_module.graph.erase_node(node)
            if not narrow.users:
                graph_module.graph.erase_node(narrow)
        if pairs:
            text = f"{len(pairs)} activations are rounded to bfloat16 in the simulation only"
            state_of(graph_module).notes[self.name] = [f"{text}; {KEPT_BY}"]
        return PassResult(graph_module, bool(pairs))


def _is_rounding(node: Node) -> bool:
    """Whether a node ends a pair of casts that rounds an activation."""
    if node.target is not CAST or node.kwargs.get("dtype") is not torch.float32:
        return False
    narrow = node.all_input_nodes[0]
    if narrow.target is not CAST or narrow.kwargs.get("dtype") is not torch.bfloat16:
        return False
    source = narrow.all_input_nodes[0]
    return not is_attribute(source) and source.meta["val"].dtype is torch.float32
