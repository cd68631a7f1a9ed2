"""Stubs in the user's model say what stays float: everything outside of them.

    %quant = quant @quant(%x)                    %conv = conv2d(%x, @w)
    %conv = Conv2d @conv(%quant)                 %fc = linear(%conv, @v)
    %dequant = dequant @dequant(%conv)     ->      !outside QuantStub…DeQuantStub, model.py:41
    %fc = Linear @fc(%dequant)                   return %fc
    return %fc

What is computed from a stubbed value is inside, until a DeQuantStub; the rest is outside, and each
node's `meta` keeps the reason, which `annotate` obeys. Parameters and what is computed from them
alone are on neither side. In a model without stubs nothing is marked. The stubs themselves go: they
compute nothing, and between a layer and its norm they would be in the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.edit import OUTSIDE, get_attribute
from fxquant.ir.source import source_of
from fxquant.quant.stubs import DeQuantStub, QuantStub

INSIDE = ""
"""The mark of a value between stubs; that of one outside is the reason, in words."""


def stub_at(root: GraphModule, node: Node) -> type[QuantStub | DeQuantStub] | None:
    """The kind of stub that a node calls, if it does."""
    if node.op != "call_module":
        return None
    module = get_attribute(root, str(node.target))
    return type(module) if isinstance(module, QuantStub | DeQuantStub) else None


def mark_outside(root: GraphModule) -> None:
    """Note at every node outside of the user's stubs that it is, and which line says so."""
    if not any(stub_at(root, node) for node in root.graph.nodes):
        return
    marks: dict[Node, str] = {}
    for node in root.graph.nodes:
        mark = _mark(root, node, marks)
        if mark is not None:
            marks[node] = mark
        if mark and node.op.startswith("call"):
            node.meta[OUTSIDE] = mark


def _mark(root: GraphModule, node: Node, marks: Mapping[Node, str]) -> str | None:
    """INSIDE, a reason, or None for what is on neither side."""
    stub = stub_at(root, node)
    if stub is QuantStub:
        return INSIDE
    if stub is DeQuantStub or node.op == "placeholder":
        return f"outside QuantStub…DeQuantStub{_line(node)}"
    known = [each for each in node.all_input_nodes if each in marks]
    floats = [each for each in known if _is_float(each)]
    found = [marks[each] for each in floats or known]
    outside = next((mark for mark in found if mark), None)
    if outside is None or INSIDE not in found:
        return _of_this_line(outside, node) if found else None
    return f"reads values from inside and outside QuantStub…DeQuantStub{_line(node)}"


def _of_this_line(mark: str | None, node: Node) -> str:
    """Before the first stub there is no line that says so but the node's own."""
    if mark is None:
        return INSIDE
    return mark if "," in mark else f"{mark}{_line(node)}"


def _line(node: Node) -> str:
    source = source_of(node)
    return "" if source is None else f", {Path(source.file).name}:{source.line}"


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    several = isinstance(value, list | tuple)
    return several or (isinstance(value, torch.Tensor) and value.is_floating_point())
