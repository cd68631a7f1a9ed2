"""Get batch norms ready to train beside quantized weights, and say which layer absorbs which.

    %conv = conv2d(%x, @conv.weight)            %conv = conv2d(%x, @conv.weight)
    %bn = BatchNorm2d @bn(%conv)          ->    %bn = TrainedBatchNorm @bn(%conv)
    %h = hardsigmoid(%bn)                       %h_line = line<1/6,0.5> @h_line(%bn)
                                                %h = hardtanh(%h_line) {min_val=0}

Where calibration folds batch norms (`fuse-conv-bn`) and the slope of a hard sigmoid
(`fuse-conv-hardsigmoid`) before anything is observed, training keeps them, with the names of their
parameters, until it is frozen. annotate sees a layer and what it absorbs as one operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten
from fxquant.ir.edit import add_module, get_attribute, inherit, replace_node
from fxquant.ir.state import state_of
from fxquant.passes.absorbed import batch_norm_at, mark, training_table
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.fuse_conv_bn import layer_of
from fxquant.passes.registry import register_pass
from fxquant.quant.constraints import ConstraintTable
from fxquant.quant.qat.batch_norm import Line, TrainedBatchNorm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@register_pass
@dataclass(frozen=True)
class KeepBatchNorms(Pass):
    """Get batch norms ready to train beside quantized weights.

    graph(%x):                                   graph(%x):
      %conv = conv2d(%x, @conv.weight)             %conv = conv2d(%x, @conv.weight)
      %bn = BatchNorm2d @bn(%conv)          ->     %bn = TrainedBatchNorm @bn(%conv)
      return (%bn)                                 return (%bn)
    """

    name: ClassVar[str] = "keep-batch-norms"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    establishes: ClassVar[frozenset[str]] = frozenset({"trainable"})
    semantics: ClassVar[Semantics] = close(1e-5)

    def run(self, graph_module: GraphModule) -> PassResult:
        _replace_modules(graph_module)
        for node in list(graph_module.graph.nodes):
            if node.target is aten.hardsigmoid.default and _ends_layer(graph_module, node):
                _split(graph_module, node)
        mark(graph_module)
        state = state_of(graph_module)
        if isinstance(state.constraints, ConstraintTable):
            state.constraints = training_table(state.constraints)
        return PassResult(graph_module, True)


def _replace_modules(root: GraphModule) -> None:
    made: dict[int, TrainedBatchNorm] = {}
    for path, module in list(root.named_modules(remove_duplicate=False)):
        if type(module) in BATCH_NORMS:
            known = made.setdefault(id(module), TrainedBatchNorm.of(module))
            owner, _, name = path.rpartition(".")
            (get_attribute(root, owner) if owner else root).add_module(name, known)


def _ends_layer(root: GraphModule, node: Node) -> bool:
    source = node.args[0]
    if not isinstance(source, Node) or len(source.users) != 1:
        return False
    if batch_norm_at(root, source) is not None:
        source = source.args[0]
        if not isinstance(source, Node) or len(source.users) != 1:
            return False
    return layer_of(source) is not None


def _split(root: GraphModule, node: Node) -> None:
    path = add_module(root, f"{node.name}_line", Line(1 / 6, 0.5))
    graph = root.graph
    with graph.inserting_before(node):
        line = graph.create_node("call_module", path, (node.args[0],), {}, f"{node.name}_line")
        clamp = graph.create_node(
            "call_function", aten.hardtanh.default, (line, 0.0), {}, node.name
        )
    inherit(line, node)
    replace_node(node, clamp)
