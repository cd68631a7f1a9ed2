"""Make every FakeQuantize a constant ATen operator.

    %x_fq = fake_quantize<int8 …> @quantizers.x(%x)
    %w_fq = fake_quantize<int8 … axis=0 …> @quantizers.w(@w)
        ->
    %x_fq = fake_quantize_per_tensor_affine(%x) {scale=0.0235, zero_point=-3, …}
    %w_fq = fake_quantize_per_channel_affine(@w, @w_scale, @w_zero_point) {axis=0, …}

    %x_fq = fake_quantize<int8 dynamic> @quantizers.x(%x)
    %w_fq = fake_quantize<bfloat16> @quantizers.w(@w)
        ->
    %x_q = dynamic_quantize(%x) {dims=[-1]}
    %w_q = _to_copy(_to_copy(@w) {dtype=bf16}) {dtype=f32}

The result needs nothing of fxquant to run except where grids are dynamic, and it is what every
backend reads. Scales of weights are computed from the weights as they are now. A FakeQuantize
behind another one with the same parameters changes nothing and is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten
from fxquant.ir.edit import add_buffer, inherit, is_attribute, read_attribute, tensor_at
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.insert_observers import NAMESPACE
from fxquant.passes.registry import register_pass
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.narrow import LARGEST
from fxquant.quant.settle import fake_quantizes, settle

PER_TENSOR = aten.fake_quantize_per_tensor_affine.default
PER_CHANNEL = aten.fake_quantize_per_channel_affine.default
DYNAMIC = torch.ops.fxquant.dynamic_quantize.default
CAST = aten._to_copy.default


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
    """The operator that does what a FakeQuantize does now."""
    value, spec = node.args[0], module.spec
    name = node.name.removesuffix("_fq") + "_q"
    with root.graph.inserting_before(node):
        if spec.rounds:
            return _rounded(root, node, name, spec.dtype)
        if spec.dynamic:
            grid = (list(spec.dims), spec.low, spec.high)
            new = root.graph.create_node("call_function", DYNAMIC, (value, *grid), name=name)
        elif spec.axis is None:
            fixed = (float(module.scale), int(module.zero_point), spec.low, spec.high)
            new = root.graph.create_node("call_function", PER_TENSOR, (value, *fixed), name=name)
        else:
            scale = _buffer(root, node, "scale", module.scale)
            zero_point = _buffer(root, node, "zero_point", module.zero_point)
            rest = (scale, zero_point, spec.axis, spec.low, spec.high)
            new = root.graph.create_node("call_function", PER_CHANNEL, (value, *rest), name=name)
    return inherit(new, node)


def _rounded(root: GraphModule, node: Node, name: str, dtype: str) -> Node:
    """The value cast to a narrow dtype and back; what the dtype cannot hold is clamped before."""
    value, graph = node.args[0], root.graph
    assert isinstance(value, Node)
    largest = LARGEST.get(dtype)
    if largest is not None and _exceeds(root, value, largest):
        args = (value, -largest, largest)
        value = inherit(graph.create_node("call_function", aten.clamp.default, args), node)
    narrow: torch.dtype = getattr(torch, dtype)
    cast = graph.create_node(
        "call_function", CAST, (value,), {"dtype": narrow}, name=f"{name}_{dtype}"
    )
    inherit(cast, node)
    cast.meta["val"] = node.meta["val"].to(narrow)
    back = graph.create_node("call_function", CAST, (cast,), {"dtype": torch.float32}, name=name)
    return inherit(back, node)


def _exceeds(root: GraphModule, value: Node, largest: float) -> bool:
    """Whether a value may have elements beyond a bound; of a constant this is known."""
    return not is_attribute(value) or bool((tensor_at(root, value).abs() > largest).any())


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
