"""Put constants that are added to or multiplied with a layer's result into its weights.

    %conv = conv2d(%x, @w)
    %sub = sub(%conv, @mean)              %conv = conv2d(%x, @w, @bias)
    %mul = mul(%sub, @scale)        ->
    %add = add(%mul) {other=1}

(w*x + b) * s + c = (w*s)*x + (b*s + c): the same function up to rounding. Each step goes in by
itself, so a batch norm written by hand does too. Only where the constant has one value or one per
output channel, nobody else reads the layer's result, and its weight is a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten, is_aten, overload
from fxquant.ir.edit import inherit, is_attribute, prune_attributes, tensor_at
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.fuse_conv_bn import LAYERS, fold_into_layer, has_constant_weight, layer_of
from fxquant.passes.registry import register_pass


class Affine(NamedTuple):
    """A layer whose result is multiplied with `scale` and shifted; both float64 [C]."""

    layer: Node
    scale: Tensor
    shift: Tensor


@register_pass
@dataclass(frozen=True)
class FoldAffine(Pass):
    """Put constants around a layer into its weights.

    graph(%x):                                   graph(%x):
      %fc = linear(%x, @fc.weight)          ->     %fc = linear(%x, @fc.weight, @fc.bias)
      %add = add(%fc, @constant)                   return (%fc)
      return (%add)
    """

    name: ClassVar[str] = "fold-affine"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = close(1e-4)

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            found = affine_of(graph_module, node)
            if found is not None:
                fold_into_layer(graph_module, *found)
                inherit(found.layer, node, value=False)
                node.replace_all_uses_with(found.layer)
                graph_module.graph.erase_node(node)
                modified = True
        if modified:
            prune_attributes(graph_module)
        return PassResult(graph_module, modified)


def affine_of(root: GraphModule, node: Node) -> Affine | None:
    """A node as a layer's result times a scale plus a shift; None for any other."""
    if node.target not in SIGNS or node.kwargs:
        return None
    first, second = node.args[:2]
    swap = node.target in COMMUTATIVE and isinstance(second, Node) and not is_attribute(second)
    value, other = (second, first) if swap else (first, second)
    if not isinstance(value, Node) or not _foldable(value):
        return None
    before, after = value.meta["val"], node.meta["val"]
    if before.shape != after.shape or before.dtype != after.dtype:
        return None
    constant = _per_channel(root, value, other)
    if constant is None or (node.target is aten.div.Tensor and not bool(constant.all())):
        return None
    factor, offset = SIGNS[overload(node)]
    one, nothing = torch.ones_like(constant), torch.zeros_like(constant)
    if offset:
        return Affine(value, one * factor, constant * offset)
    return Affine(value, constant if factor == 1 else 1 / constant, nothing)


def _foldable(value: Node) -> bool:
    linear = is_aten(value) and overload(value) is aten.linear.default
    if len(value.users) != 1 or not is_aten(value) or overload(value) not in LAYERS:
        return False
    return has_constant_weight(value) if linear else layer_of(value) is not None


SIGNS = {
    aten.add.Tensor: (1, 1),
    aten.sub.Tensor: (1, -1),
    aten.rsub.Scalar: (-1, 1),
    aten.mul.Tensor: (1, 0),
    aten.div.Tensor: (-1, 0),
}
"""How the constant counts: (sign or exponent of the factor, sign of the shift)."""

COMMUTATIVE = frozenset({aten.add.Tensor, aten.mul.Tensor})


def _per_channel(root: GraphModule, layer: Node, other: object) -> Tensor | None:
    """A constant operand as one number per output channel; None where it is none."""
    value = layer.meta["val"]
    axis = value.dim() - 1 if overload(layer) is aten.linear.default else 1
    channels = int(value.shape[axis])
    if isinstance(other, int | float) and not isinstance(other, bool):
        return torch.full((channels,), float(other), dtype=torch.float64)
    if not (isinstance(other, Node) and is_attribute(other)):
        return None
    tensor = tensor_at(root, other).detach()
    if tensor.numel() == 1:
        return tensor.double().reshape(1).expand(channels)
    wanted = [channels if dim == axis else 1 for dim in range(value.dim())]
    missing = value.dim() - tensor.dim()
    if missing < 0 or [1] * missing + list(tensor.shape) != wanted:
        return None
    return tensor.double().reshape(channels)
