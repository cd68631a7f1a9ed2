"""Compute operators of the tfl dialect whose operands are all stored.

%t = transpose(@table) {perm=(1,0)}; add(%x, %t)   ->   add(%x, @t)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QTensor
from fxquant.ir.edit import add_buffer, inherit, prune_attributes, tensor_at
from fxquant.ir.types import TensorType
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass

KEPT = frozenset({tfl.constant, tfl.bind, tfl.unbind, tfl.dequantize})
"""Borders, and what turns weights into floats: they are stored narrow on purpose."""


@register_pass
@dataclass(frozen=True)
class FoldTflConstants(Pass):
    """Replace operators on stored tensors by their result, by running them.

    graph(%x: f32[2,3]):                              graph(%x: f32[2,3]):
      %t = transpose(@w) {perm=(1,0)} : f32[2,3]  ->    %y = add(%x, @w_t) : f32[2,3]
      %y = add(%x, %t) : f32[2,3]                       return (%y)
      return (%y)

    Attributes:
        growth: the most by which a result may exceed its operands, in elements.
    """

    name: ClassVar[str] = "fold-tfl-constants"
    requires: ClassVar[frozenset[str]] = frozenset({"tfl"})
    semantics: ClassVar[Semantics] = EXACT

    growth: int = 1 << 16

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        stored: dict[Node, bool] = {}
        for node in list(graph_module.graph.nodes):
            stored[node] = node.op == "get_attr" or node.target is tfl.constant
            if self._foldable(node, stored):
                stored[_fold(graph_module, node)] = True
                modified = True
        if modified:
            _sweep(graph_module)
        return PassResult(graph_module, modified)

    def _foldable(self, node: Node, stored: dict[Node, bool]) -> bool:
        kind = node.meta.get("type")
        if node.op != "call_function" or node.target in KEPT or not isinstance(kind, TensorType):
            return False
        operands = node.all_input_nodes
        if node.target is tfl.cast and operands[0].meta["val"].dtype is torch.bfloat16:
            return False
        if not operands or not all(stored.get(operand, False) for operand in operands):
            return False
        before = sum(operand.meta["val"].numel() for operand in operands)
        return bool(node.meta["val"].numel() <= before + self.growth)


def _fold(root: GraphModule, node: Node) -> Node:
    def load(operand: Node) -> Any:
        if operand.op == "get_attr":
            return tensor_at(root, operand).detach()
        return _run(operand, load)

    with torch.no_grad():
        value = _run(node, load)
    kind: TensorType = node.meta["type"]
    with root.graph.inserting_before(node):
        new = _stored(root, node.name, value, kind)
    inherit(new, node)
    node.replace_all_uses_with(new)
    root.graph.erase_node(node)
    return new


def _run(node: Node, load: Callable[[Node], Any]) -> Any:
    function: Any = node.target
    args: Any = _loaded(node.args, load)
    return function(*args, **_loaded(node.kwargs, load))


def _loaded(arguments: Any, load: Callable[[Node], Any]) -> Any:
    if isinstance(arguments, Node):
        return load(arguments)
    if isinstance(arguments, dict):
        return {key: _loaded(part, load) for key, part in arguments.items()}
    if isinstance(arguments, tuple) and hasattr(arguments, "_fields"):
        return arguments
    if isinstance(arguments, list | tuple):
        return [_loaded(part, load) for part in arguments]
    return arguments


def _stored(root: GraphModule, name: str, value: Any, kind: TensorType) -> Node:
    data = value.values if isinstance(value, QTensor) else value
    read = root.graph.get_attr(add_buffer(root, name, data.contiguous()))
    read.meta["val"] = torch.empty(kind.shape, dtype=kind.dtype, device="meta")
    read.meta["type"] = TensorType(kind.shape, kind.dtype)
    if kind.quantization is None:
        return read
    quantization = kind.quantization
    args = (read, quantization.scale[0], quantization.zero_point[0])
    new = root.graph.call_function(tfl.constant, args)
    new.meta["type"] = kind
    new.meta["val"] = read.meta["val"]
    return new


def _sweep(root: GraphModule) -> None:
    for node in reversed(list(root.graph.nodes)):
        if not node.users and (node.op == "get_attr" or node.target is tfl.constant):
            root.graph.erase_node(node)
    prune_attributes(root)
