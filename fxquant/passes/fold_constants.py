"""Compute at compile time what does not depend on an input.

    %t = permute(@weight) {dims=[1,0]}; mm(%x, %t)   ->   mm(%x, @_folded)
    %q, %k = chunk(@weight, 2); linear(%x, %q)       ->   linear(%x, @_folded)

Fake-quantize nodes stay: lowering reads the grid of a weight from them. A result that is much
larger than what it is made from (an expanded constant) stays as it is.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from fxquant.ir.aten import is_aten, overload, packet_name
from fxquant.ir.edit import add_buffer, inherit, prune_attributes, read_attribute, tensor_at
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass


@register_pass
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace operators on constants by their result.

    graph(%x):                                   graph(%x):
      %t = permute(@w) {dims=[1,0]}         ->     %y = mm(%x, @t)
      %y = mm(%x, %t)                              return (%y)
      return (%y)

    Attributes:
        growth: the most by which a result may exceed its operands, in elements.
        parameters: fold what is computed from parameters too; training must not.
    """

    name: ClassVar[str] = "fold-constants"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = EXACT

    growth: int = 1 << 20
    parameters: bool = True

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            if self._foldable(node) and (self.parameters or not _learns(graph_module, node)):
                _fold(graph_module, node)
                modified = True
        if modified:
            _sweep(graph_module)
        return PassResult(graph_module, modified)

    def _foldable(self, node: Node) -> bool:
        if not is_aten(node) or not (_is_tensor(node) or _is_taken_apart(node)):
            return False
        if packet_name(node.target).startswith("fake_quantize"):
            return False
        if torch.Tag.nondeterministic_seeded in overload(node).tags or _is_random(node):
            return False
        operands = node.all_input_nodes
        if any(operand.op != "get_attr" for operand in operands):
            return False
        before = sum(operand.meta["val"].numel() for operand in operands)
        after = sum(value.numel() for value in pytree.tree_leaves(node.meta["val"]))
        return bool(after <= before + self.growth)


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _is_taken_apart(node: Node) -> bool:
    """Whether a node gives several tensors, each of which is read by its number."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    tensors = isinstance(node.meta.get("val"), tuple | list) and all(
        isinstance(leaf, Tensor) for leaf in leaves
    )
    return tensors and all(user.target is operator.getitem for user in node.users)


def _learns(root: GraphModule, node: Node) -> bool:
    return any(isinstance(tensor_at(root, n), nn.Parameter) for n in node.all_input_nodes)


def _is_random(node: Node) -> bool:
    return packet_name(node.target).startswith(
        ("rand", "bernoulli", "empty", "normal", "multinomial")
    )


def _fold(root: GraphModule, node: Node) -> None:
    def load(argument: Node) -> Tensor:
        return tensor_at(root, argument).detach()

    with torch.no_grad():
        value = overload(node)(*map_arg(node.args, load), **map_arg(node.kwargs, load))
    if isinstance(value, Tensor):
        _replace(root, node, value)
        return
    for user in list(node.users):
        _replace(root, user, value[user.args[1]])
    root.graph.erase_node(node)


def _replace(root: GraphModule, node: Node, value: Tensor) -> None:
    with root.graph.inserting_before(node):
        path = add_buffer(root, f"_folded.{node.name}", value.clone())
        read = read_attribute(root.graph, root, path)
    inherit(read, node, value=False)
    node.replace_all_uses_with(read)
    root.graph.erase_node(node)


def _sweep(root: GraphModule) -> None:
    for node in list(root.graph.nodes):
        if node.op == "get_attr" and not node.users:
            root.graph.erase_node(node)
    prune_attributes(root)
