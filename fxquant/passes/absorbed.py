"""What stands behind a layer in training and goes into its weights when it is frozen.

    %conv = conv2d(%x, @w)
    %bn = TrainedBatchNorm @bn(%conv)      absorbed: nobody else reads %conv
    %relu = relu(%bn)

`mark` leaves a mark that annotate reads: the target sees the layer and what it absorbs as one
operator. A batch norm that no layer absorbs becomes a depthwise convolution, and is annotated as
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

from fxquant.ir.edit import get_attribute
from fxquant.passes.fuse_conv_bn import layer_of
from fxquant.quant.constraints import ABSORBED, ConstraintTable, Row, leader_of, plain
from fxquant.quant.qat.batch_norm import Line

CONVOLUTION_OF_RANK = {3: "conv1d", 4: "conv2d"}


def module_of(root: GraphModule, node: Node) -> nn.Module | None:
    """The module that a node calls."""
    if node.op != "call_module":
        return None
    module = get_attribute(root, str(node.target))
    return module if isinstance(module, nn.Module) else None


def batch_norm_at(root: GraphModule, node: Node) -> _BatchNorm | None:
    """The batch norm with running statistics that a node calls."""
    module = module_of(root, node)
    known = isinstance(module, _BatchNorm) and module.running_mean is not None
    return module if known and isinstance(module, _BatchNorm) else None


def mark(root: GraphModule) -> None:
    """Mark every batch norm and line that the layer before it absorbs, at most one norm each."""
    normed: set[Node] = set()
    for node in root.graph.nodes:
        norm = batch_norm_at(root, node) is not None
        if not norm and not isinstance(module_of(root, node), Line):
            continue
        source = node.args[0]
        if not isinstance(source, Node) or len(source.users) != 1:
            continue
        if norm and source in normed:
            continue
        if ABSORBED in source.meta or layer_of(source) is not None:
            node.meta[ABSORBED] = True
            if norm or source in normed:
                normed.add(node)


def chain_of(layer: Node) -> list[Node]:
    """The nodes that a layer absorbs, in order."""
    found: list[Node] = []
    last = layer
    while len(last.users) == 1 and leader_of(next(iter(last.users))) is last:
        last = next(iter(last.users))
        found.append(last)
    return found


def layers(root: GraphModule) -> Iterator[tuple[Node, list[Node]]]:
    """Every layer that absorbs something, with what it absorbs."""
    for node in list(root.graph.nodes):
        chain = [] if ABSORBED in node.meta else chain_of(node)
        if chain:
            yield node, chain


@dataclass(frozen=True)
class TrainingTable(ConstraintTable):
    """A target's table, read for a graph whose batch norms are not folded yet."""

    def row_of(self, node: Node, root: GraphModule) -> Row | None:
        """The row of what a node will be part of when it is frozen."""
        leader = leader_of(node)
        if leader is not None:
            row = super().row_of(_first(node), root)
            row = None if row is None else replace(row, operands={"self": plain}, checks=())
        elif batch_norm_at(root, node) is not None:
            row = self._standalone(node)
        else:
            row = super().row_of(node, root)
        return row if row is None or not chain_of(node) else replace(row, fuses=True)

    def _standalone(self, node: Node) -> Row | None:
        found = self.rows.get(CONVOLUTION_OF_RANK.get(node.meta["val"].dim(), ""))
        row = found[0] if isinstance(found, tuple) else found
        if row is None or row.reason:
            return None
        operands = {"self": row.operands["input"]}
        return replace(row, operands=operands, checks=(), when=None)

    def fuses_into(self, node: Node, activation: Node) -> bool:
        """Whether what follows is part of a node's operator."""
        absorbed = leader_of(activation) is node and len(node.users) == 1
        return absorbed or super().fuses_into(node, activation)


def _first(node: Node) -> Node:
    leader = leader_of(node)
    return node if leader is None else _first(leader)


def training_table(table: ConstraintTable) -> TrainingTable:
    """A target's table for a graph in training."""
    return TrainingTable(**{item.name: getattr(table, item.name) for item in fields(table)})


def plain_table(table: ConstraintTable) -> ConstraintTable:
    """A target's table for a frozen graph."""
    return ConstraintTable(**{item.name: getattr(table, item.name) for item in fields(table)})
