"""Let a layer compute the line of the hard sigmoid behind it, so that only its clamp remains.

    %c = conv2d(%x, @w, @b)             %c = conv2d(%x, @w / 6, @b / 6 + 0.5)
    %h = hardsigmoid(%c)          ->    %h = hardtanh(%c) {min_val=0}

hardsigmoid(c) = clamp(c / 6 + 1/2, 0, 1). Targets have no hard sigmoid; they would add, clamp and
multiply. On an integer grid that ends at 0 and 1 even the clamp costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten
from fxquant.ir.edit import prune_attributes, replace_node, tensor_at
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.fuse_conv_bn import fold_into_layer, foldable, layer_of
from fxquant.passes.registry import register_pass


@register_pass
@dataclass(frozen=True)
class FuseConvHardsigmoid(Pass):
    """Fold the slope and the offset of a hard sigmoid into the layer before it.

    graph(%x):                                   graph(%x):
      %c = conv2d(%x, @w, @b)               ->     %c = conv2d(%x, @w, @b)
      %h = hardsigmoid(%c)                         %h = hardtanh(%c) {min_val=0}
    """

    name: ClassVar[str] = "fuse-conv-hardsigmoid"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = close(1e-5)

    def run(self, graph_module: GraphModule) -> PassResult:
        found = [node for node in graph_module.graph.nodes if _matches(node)]
        for node in found:
            _fold(graph_module, node)
        if found:
            prune_attributes(graph_module)
        return PassResult(graph_module, bool(found))


def _matches(node: Node) -> bool:
    return node.target is aten.hardsigmoid.default and foldable(node)


def _fold(root: GraphModule, node: Node) -> None:
    layer = node.args[0]
    assert isinstance(layer, Node)
    sixth = torch.full((_channels(root, layer),), 1 / 6, dtype=torch.float64)
    fold_into_layer(root, layer, sixth, torch.full_like(sixth, 0.5))
    with root.graph.inserting_before(node):
        clamp = root.graph.create_node(
            "call_function", aten.hardtanh.default, (layer, 0.0), {}, node.name
        )
    replace_node(node, clamp)


def _channels(root: GraphModule, layer: Node) -> int:
    weight = layer.args[1]
    assert isinstance(weight, Node)
    shape = tensor_at(root, weight).shape
    kind = layer_of(layer)
    assert kind is not None
    if not kind.transposed:
        return int(shape[0])
    groups = layer.args[6] if len(layer.args) > 6 else 1
    assert isinstance(groups, int)
    return int(shape[1]) * groups
