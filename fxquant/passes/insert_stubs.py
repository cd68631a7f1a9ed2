"""Mark where quantized regions begin and end.

    %conv = conv2d(%x, @w)  !int8      ->  %x_quant = quant(%x)
    return %conv                           %conv = conv2d(%x_quant, @w)  !int8
                                           %conv_dequant = dequant(%conv)
                                           return %conv_dequant

One stub per value, however many operators read it. Stubs compute nothing, so nothing changes yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.fx import GraphModule, Node

from fxquant.ir.edit import add_module, inherit, is_attribute
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass
from fxquant.quant.constraints import annotation_of, is_float, is_getitem
from fxquant.quant.stubs import DeQuantStub, QuantStub


@register_pass
@dataclass(frozen=True)
class InsertStubs(Pass):
    """%y = conv2d(%x, @w) !int8; erf(%y)  ->  conv2d(quant(%x), @w) !int8; erf(dequant(%y))"""

    name: ClassVar[str] = "insert-stubs"
    requires: ClassVar[frozenset[str]] = frozenset({"annotated"})
    establishes: ClassVar[frozenset[str]] = frozenset({"stubbed"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            if node.op == "output" or not is_float(node) or is_attribute(node) or _is_many(node):
                continue
            inside = _is_quantized(node)
            across = [user for user in node.users if _is_quantized(user) != inside]
            if across:
                stub = DeQuantStub if inside else QuantStub
                _insert(graph_module, node, across, stub)
                modified = True
        return PassResult(graph_module, modified)


def _is_quantized(node: Node) -> bool:
    annotation = annotation_of(node)
    return annotation is not None and annotation.quantized


def _is_many(node: Node) -> bool:
    return any(is_getitem(user) for user in node.users)


def _insert(
    root: GraphModule, value: Node, users: list[Node], stub: Callable[[], nn.Module]
) -> None:
    name = f"{value.name}_{'dequant' if stub is DeQuantStub else 'quant'}"
    path = add_module(root, name, stub())
    with root.graph.inserting_after(value):
        node = root.graph.create_node("call_module", path, (value,), {}, name=name)
    inherit(node, value)
    for user in users:
        user.replace_input_with(value, node)
