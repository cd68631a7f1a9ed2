"""Compute once what is computed twice from the same values.

    %a = relu(%x); %b = relu(%x); add(%a, %b)   ->   %a = relu(%x); add(%a, %a)

Only ATen operators that are deterministic and have no side effect; attributes read at two places
become one read.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.aten import is_aten, overload
from fxquant.ir.edit import OUTSIDE, inherit
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass


@register_pass
@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merge nodes that compute the same value.

    graph(%x):                                   graph(%x):
      %a = relu(%x)                         ->     %a = relu(%x)
      %b = relu(%x)                                %c = add(%a, %a)
      %c = add(%a, %b)                             return (%c)
      return (%c)
    """

    name: ClassVar[str] = "common-subexpressions"
    requires: ClassVar[frozenset[str]] = frozenset({"functional"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        known: dict[Hashable, Node] = {}
        modified = False
        for node in list(graph_module.graph.nodes):
            key = _key(node)
            if key is None:
                continue
            first = known.setdefault(key, node)
            if first is not node:
                inherit(first, node, value=False)
                node.replace_all_uses_with(first)
                graph_module.graph.erase_node(node)
                modified = True
        return PassResult(graph_module, modified)


def _key(node: Node) -> Hashable | None:
    if node.op == "get_attr":
        return ("get_attr", node.target)
    if not is_aten(node) or torch.Tag.nondeterministic_seeded in overload(node).tags:
        return None
    if overload(node)._schema.is_mutable:
        return None
    return (node.target, _freeze(node.args), _freeze(node.kwargs), OUTSIDE in node.meta)


def _freeze(value: Any) -> Hashable:
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _freeze(item)) for name, item in sorted(value.items()))
    # 1, 1.0 and True are equal in Python and not in ATen; nan and -0.0 need their text.
    return value if isinstance(value, Node) else (type(value).__name__, repr(value))
