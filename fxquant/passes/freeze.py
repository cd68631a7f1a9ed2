"""Make every FakeQuantize a constant ATen operator.

    %x_fq = fake_quantize<int8 …> @quantizers.x(%x)
    %w_fq = fake_quantize<int8 … axis=0 …> @quantizers.w(@w)
        ->
    %x_fq = fake_quantize_per_tensor_affine(%x) {scale=0.0235, zero_point=-3, …}
    %w_fq = fake_quantize_per_channel_affine(@w, @w_scale, @w_zero_point) {axis=0, …}

The result needs nothing of fxquant to run, and it is what every backend reads. Scales of weights
are computed from the weights as they are now. A FakeQuantize behind another one with the same
parameters changes nothing and is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten
from fxquant.ir.edit import add_buffer, inherit, read_attribute
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.insert_observers import NAMESPACE
from fxquant.passes.registry import register_pass
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.settle import fake_quantizes, settle

PER_TENSOR = aten.fake_quantize_per_tensor_affine.default
PER_CHANNEL = aten.fake_quantize_per_channel_affine.default


@register_pass
@dataclass(frozen=True)
class Freeze(Pass):
    """%y = fake_quantize<…>(%x)  ->  %y = fake_quantize_per_tensor_affine(%x) {scale=…, …}"""

    name: ClassVar[str] = "freeze"
    requires: ClassVar[frozenset[str]] = frozenset({"observed"})
    establishes: ClassVar[frozenset[str]] = frozenset({"frozen"})
    invalidates: ClassVar[frozenset[str]] = frozenset({"observed"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        settle(graph_module)
        for node, module in list(fake_quantizes(graph_module)):
            new = _constant(graph_module, node, module)
            node.replace_all_uses_with(new)
            graph_module.graph.erase_node(node)
        _drop_repeated(graph_module)
        if hasattr(graph_module, NAMESPACE):
            delattr(graph_module, NAMESPACE)
        return PassResult(graph_module, True)


def _constant(root: GraphModule, node: Node, module: FakeQuantize) -> Node:
    """The ATen operator that does what a FakeQuantize does now."""
    value, spec = node.args[0], module.spec
    name = node.name.removesuffix("_fq") + "_q"
    with root.graph.inserting_before(node):
        if spec.axis is None:
            grid = (float(module.scale), int(module.zero_point), spec.low, spec.high)
            new = root.graph.create_node("call_function", PER_TENSOR, (value, *grid), name=name)
        else:
            scale = _buffer(root, node, "scale", module.scale)
            zero_point = _buffer(root, node, "zero_point", module.zero_point)
            rest = (scale, zero_point, spec.axis, spec.low, spec.high)
            new = root.graph.create_node("call_function", PER_CHANNEL, (value, *rest), name=name)
    return inherit(new, node)


def _buffer(root: GraphModule, node: Node, what: str, tensor: torch.Tensor) -> Node:
    label = str(node.target).rpartition(".")[2]
    path = add_buffer(root, f"{label}_{what}", tensor)
    return read_attribute(root.graph, root, path)


def _drop_repeated(root: GraphModule) -> None:
    """Erase a per-tensor fake-quantize right behind an equal one."""
    for node in list(root.graph.nodes):
        before = node.args[0] if node.target is PER_TENSOR else None
        if not isinstance(before, Node) or before.target is not PER_TENSOR:
            continue
        if before.args[1:] == node.args[1:]:
            node.replace_all_uses_with(before)
            root.graph.erase_node(node)
