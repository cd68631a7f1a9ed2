"""Compute floats in half precision, between borders that stay float32.

    %y = relu(%x) : f32[4]   ->   %x_1 = _to_copy(%x) {dtype=f16} : f16[4]
                                  %y = relu(%x_1) : f16[4]
                                  %y_1 = _to_copy(%y) {dtype=f32} : f32[4]

Numbers that the dtype cannot hold become its largest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate, map_arg

from fxquant.errors import PassError
from fxquant.ir.aten import aten
from fxquant.ir.edit import add_buffer, add_module, get_attribute, inherit, read_attribute
from fxquant.ir.state import state_of
from fxquant.passes.base import CHANGES, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass

WIDE = (torch.float32, torch.float64)


@register_pass
@dataclass(frozen=True)
class ReducePrecision(Pass):
    """%y = relu(%x) : f32[4]  ->  %y = relu(_to_copy(%x) {dtype=f16}) : f16[4]

    Attributes:
        dtype: "float16" or "bfloat16".
    """

    name: ClassVar[str] = "reduce-precision"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = CHANGES

    dtype: str = "float16"

    def run(self, graph_module: GraphModule) -> PassResult:
        if "frozen" in state_of(graph_module).properties:
            fix = 'lower the float graph, or use precision="float32"'
            raise PassError(f"a quantized graph cannot be turned into {self.dtype}", fix=fix)
        narrow: torch.dtype = getattr(torch, self.dtype)
        for node in list(graph_module.graph.nodes):
            _visit(graph_module, node, narrow)
        graph_module.delete_all_unused_submodules()
        return PassResult(graph_module, True)


def _visit(root: GraphModule, node: Node, narrow: torch.dtype) -> None:
    if node.op == "placeholder":
        _cast_after(root, node, narrow)
    elif node.op == "get_attr":
        _narrow_constant(root, node, narrow)
    elif node.op == "output":
        _cast_results(root, node)
    elif node.op == "call_module":
        _narrow_module(root, node, narrow)
    else:
        node.args = map_aggregate(node.args, _narrower(narrow))
        node.kwargs = map_aggregate(node.kwargs, _narrower(narrow))
        _infer(node, node.target)  # type: ignore[arg-type]


def _narrower(narrow: torch.dtype) -> Callable[[Any], Any]:
    largest = torch.finfo(narrow).max

    def replace(value: Any) -> Any:
        if isinstance(value, torch.dtype) and value in WIDE:
            return narrow
        if isinstance(value, float) and abs(value) > largest and abs(value) != float("inf"):
            return largest if value > 0 else -largest
        return value

    return replace


def _cast(root: GraphModule, value: Node, dtype: torch.dtype) -> Node:
    node = root.graph.create_node(
        "call_function", aten._to_copy.default, (value,), {"dtype": dtype}, name=f"{value.name}_to"
    )
    inherit(node, value, value=False)
    _infer(node, aten._to_copy.default)
    return node


def _cast_after(root: GraphModule, node: Node, narrow: torch.dtype) -> None:
    if node.meta["val"].dtype not in WIDE or not node.users:
        return
    with root.graph.inserting_after(node):
        cast = _cast(root, node, narrow)
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def _cast_results(root: GraphModule, node: Node) -> None:
    def widened(value: Node) -> Node:
        if value.meta["val"].dtype not in (torch.float16, torch.bfloat16):
            return value
        return _cast(root, value, torch.float32)

    with root.graph.inserting_before(node):
        node.args = map_arg(node.args, widened)


def _narrow_constant(root: GraphModule, node: Node, narrow: torch.dtype) -> None:
    value = get_attribute(root, str(node.target))
    if not isinstance(value, Tensor) or value.dtype not in WIDE:
        return
    with root.graph.inserting_before(node):
        path = add_buffer(root, str(node.target), value.detach().to(narrow))
        node.replace_all_uses_with(read_attribute(root.graph, root, path))
    root.graph.erase_node(node)


def _narrow_module(root: GraphModule, node: Node, narrow: torch.dtype) -> None:
    module: nn.Module = get_attribute(root, str(node.target))
    narrowed = copy.deepcopy(module).to(narrow)
    node.target = add_module(root, f"{node.target}_{str(narrow).removeprefix('torch.')}", narrowed)
    value = node.meta["val"]
    node.meta["val"] = torch.empty(value.shape, dtype=narrow, device="meta")


def _infer(node: Node, function: Callable[..., Any]) -> None:
    def stand_in(operand: Node) -> Any:
        return map_aggregate(operand.meta["val"], _meta)

    args, kwargs = map_arg((node.args, node.kwargs), stand_in)
    node.meta["val"] = function(*args, **kwargs)


def _meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
