"""Fold an evaluated batch norm into the convolution or linear layer before it.

    %conv = conv2d(%x, @conv.weight)            %conv = conv2d(%x, @conv.weight, @conv.bias)
    %bn = BatchNorm2d @bn(%conv)          ->

BN(w*x + b) = (w*g)*x + (b - mean)*g + beta with g = gamma / sqrt(var + eps): the same function up
to rounding. Only where the convolution's result goes nowhere else, its weight is a constant, and
the batch norm is in eval mode; in train mode it needs the statistics of each batch and stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

from fxquant.ir.aten import aten, is_aten, named_arguments, overload
from fxquant.ir.edit import (
    add_parameter,
    get_attribute,
    inherit,
    is_attribute,
    prune_attributes,
    read_attribute,
    tensor_at,
)
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.registry import register_pass


class Layer(NamedTuple):
    """How the weight of an operator is laid out: its output-channel axis, and where groups go."""

    batch_norm_rank: tuple[int, ...]
    transposed: bool = False


LAYERS = {
    aten.conv1d.default: Layer((2, 3)),
    aten.conv2d.default: Layer((3, 4)),
    aten.conv3d.default: Layer((4, 5)),
    aten.conv_transpose1d.default: Layer((2, 3), transposed=True),
    aten.conv_transpose2d.input: Layer((3, 4), transposed=True),
    aten.conv_transpose3d.input: Layer((4, 5), transposed=True),
    aten.linear.default: Layer((2,)),
}


def batch_norm_of(root: GraphModule, node: Node) -> _BatchNorm | None:
    """The batch norm that a node calls, if it is one that acts as a fixed scale and shift."""
    if node.op != "call_module":
        return None
    module = get_attribute(root, str(node.target))
    fixed = isinstance(module, _BatchNorm) and not module.training
    return module if fixed and module.running_mean is not None else None


def scale_and_shift(batch_norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Per-channel factors (scale, shift), float64 [C], of an evaluated batch norm."""
    assert batch_norm.running_mean is not None and batch_norm.running_var is not None
    mean, var = batch_norm.running_mean.double(), batch_norm.running_var.double()
    scale = torch.rsqrt(var + batch_norm.eps)
    if batch_norm.weight is not None:
        scale = scale * batch_norm.weight.detach().double()
    shift = -mean * scale
    if batch_norm.bias is not None:
        shift = shift + batch_norm.bias.detach().double()
    return scale, shift


def scaled_weight(weight: Tensor, scale: Tensor, transposed: bool, groups: int) -> Tensor:
    """The weight with each output channel multiplied by its scale, in the weight's own dtype."""
    value = weight.detach().double()
    if not transposed:
        return (value * scale.view(-1, *[1] * (value.dim() - 1))).to(weight.dtype)
    # Transposed layers store [in, out / groups, ...]; channel o of group g has scale[g * out + o].
    grouped = value.view(groups, -1, *value.shape[1:])
    factors = scale.view(groups, 1, -1, *[1] * (value.dim() - 2))
    return (grouped * factors).view_as(value).to(weight.dtype)


@register_pass
@dataclass(frozen=True)
class FuseConvBn(Pass):
    """Fold evaluated batch norms into the convolution or linear layer before them.

    graph(%x):                                   graph(%x):
      %conv = conv2d(%x, @conv.weight)             %conv = conv2d(%x, @conv.weight, @conv.bias)
      %bn = BatchNorm2d @bn(%conv)          ->     return (%conv)
      return (%bn)
    """

    name: ClassVar[str] = "fuse-conv-bn"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    establishes: ClassVar[frozenset[str]] = frozenset({"bn-folded"})
    semantics: ClassVar[Semantics] = close(1e-4)

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            batch_norm = batch_norm_of(graph_module, node)
            if batch_norm is not None and foldable(node):
                fold(graph_module, node, batch_norm)
                modified = True
        if modified:
            prune_attributes(graph_module)
        return PassResult(graph_module, modified)


def foldable(batch_norm: Node) -> bool:
    """Whether the value before a batch norm is a constant-weight layer that only it reads."""
    source = batch_norm.args[0]
    if not isinstance(source, Node) or len(source.users) != 1:
        return False
    return layer_of(source) is not None


def layer_of(node: Node) -> Layer | None:
    """How the weight of a constant-weight layer is laid out; None for other nodes."""
    layer = layout_of(node)
    return layer if layer is not None and has_constant_weight(node) else None


def layout_of(node: Node) -> Layer | None:
    """How the weight of a layer is laid out, wherever the weight comes from."""
    layer = LAYERS.get(overload(node)) if is_aten(node) else None
    if layer is None or node.meta["val"].dim() not in layer.batch_norm_rank:
        return None
    if node.meta["val"].dim() == min(layer.batch_norm_rank) and len(layer.batch_norm_rank) > 1:
        return None  # An unbatched convolution: batch norm would take dim 1, which is spatial.
    return layer


def has_constant_weight(layer: Node) -> bool:
    """Whether the weight and the bias of a layer are stored tensors."""
    named = named_arguments(layer)
    bias = named["bias"]
    return is_attribute(named["weight"]) and (bias is None or is_attribute(bias))


def fold(root: GraphModule, node: Node, batch_norm: _BatchNorm) -> None:
    """Replace `layer -> batch norm` by the layer with scaled weight and shifted bias."""
    layer = node.args[0]
    assert isinstance(layer, Node)
    fold_into_layer(root, layer, *scale_and_shift(batch_norm))
    inherit(layer, node, value=False)
    node.replace_all_uses_with(layer)
    root.graph.erase_node(node)


def fold_into_layer(root: GraphModule, layer: Node, scale: Tensor, shift: Tensor) -> None:
    """Let a layer compute `scale * layer(x) + shift`, both float64 [output channels]."""
    named = named_arguments(layer)
    weight = tensor_at(root, named["weight"])
    scale, shift = scale.to(weight.device), shift.to(weight.device)
    groups = int(named.get("groups", 1))
    new_weight = scaled_weight(weight, scale, LAYERS[overload(layer)].transposed, groups)
    new_bias = shift
    if named["bias"] is not None:
        new_bias = new_bias + tensor_at(root, named["bias"]).detach().double() * scale
    owner = str(named["weight"].target).rpartition(".")[0]
    prefix = f"{owner}." if owner else ""
    with root.graph.inserting_before(layer):
        read_weight = place_parameter(root, named["weight"], f"{prefix}weight", new_weight)
        old_bias = named["bias"] if isinstance(named["bias"], Node) else None
        read_bias = place_parameter(root, old_bias, f"{prefix}bias", new_bias.to(weight.dtype))
    layer.args = (layer.args[0], read_weight, read_bias, *layer.args[3:])


def place_parameter(root: GraphModule, old: Node | None, wanted: str, tensor: Tensor) -> Node:
    """A node that reads `tensor`, at the old parameter's own name where nobody else reads it."""
    if old is not None and _sole_reader(root, old):
        owner_path, _, name = str(old.target).rpartition(".")
        owner = get_attribute(root, owner_path) if owner_path else root
        setattr(owner, name, nn.Parameter(tensor, requires_grad=getattr(owner, name).requires_grad))
        old.meta["val"] = tensor
        return old
    read = read_attribute(root.graph, root, add_parameter(root, wanted, tensor))
    return read if old is None else inherit(read, old, value=False)


def _sole_reader(root: GraphModule, attribute: Node) -> bool:
    """Whether the tensor at this attribute is read by one node of the graph only."""
    tensor = tensor_at(root, attribute)
    readers = 0
    for node in root.graph.nodes:
        if node.op == "get_attr" and tensor_at(root, node) is tensor:
            readers += len(node.users)
    owner_path, _, name = str(attribute.target).rpartition(".")
    owner = get_attribute(root, owner_path) if owner_path else root
    return readers == 1 and isinstance(getattr(owner, name), nn.Parameter)
