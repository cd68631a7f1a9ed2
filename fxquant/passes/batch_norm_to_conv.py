"""Write a batch norm that nothing absorbs as a 1x1 depthwise convolution.

    %bn = BatchNorm2d @bn(%x)   ->   %bn = conv2d(%x, @bn.scale, @bn.shift) {groups=64}

Targets have no batch norm. Multiply and add would be two operators, two roundings and two scales;
a depthwise convolution is one operator, has a scale for each channel and takes the activation
behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten
from fxquant.ir.edit import add_parameter, prune_attributes, read_attribute, replace_node
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.fuse_conv_bn import batch_norm_of, scale_and_shift
from fxquant.passes.registry import register_pass

CONVOLUTIONS = {3: aten.conv1d.default, 4: aten.conv2d.default}


@register_pass
@dataclass(frozen=True)
class BatchNormToConv(Pass):
    """Turn evaluated batch norms of images and sequences into depthwise convolutions.

    graph(%x):                                   graph(%x):
      %bn = BatchNorm2d @bn(%x)             ->     %bn = conv2d(%x, @bn.scale, @bn.shift)
    """

    name: ClassVar[str] = "batch-norm-to-conv"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = close(1e-5)

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            if has_convolution(graph_module, node):
                as_convolution(graph_module, node)
                modified = True
        if modified:
            prune_attributes(graph_module)
        return PassResult(graph_module, modified)


def has_convolution(root: GraphModule, node: Node) -> bool:
    """Whether a node is an evaluated batch norm of images or sequences."""
    return batch_norm_of(root, node) is not None and _rank(node) in CONVOLUTIONS


def _rank(node: Node) -> int:
    return int(node.meta["val"].dim())


def as_convolution(root: GraphModule, node: Node) -> Node:
    """Put a depthwise convolution in place of an evaluated batch norm; returns it."""
    batch_norm = batch_norm_of(root, node)
    assert batch_norm is not None
    scale, shift = scale_and_shift(batch_norm)
    channels, rank, dtype = scale.numel(), _rank(node), node.meta["val"].dtype
    weight = scale.to(dtype).view(channels, *[1] * (rank - 1))
    graph, spatial = root.graph, rank - 2
    with graph.inserting_before(node):
        filters = read_attribute(graph, root, add_parameter(root, f"{node.target}.scale", weight))
        bias = read_attribute(
            graph, root, add_parameter(root, f"{node.target}.shift", shift.to(dtype))
        )
        ones, zeros = [1] * spatial, [0] * spatial
        arguments = (node.args[0], filters, bias, ones, zeros, ones, channels)
        new = graph.create_node("call_function", CONVOLUTIONS[rank], arguments, {}, node.name)
    replace_node(node, new)
    return new
