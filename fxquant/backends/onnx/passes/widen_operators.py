"""Operators for which a runtime has no kernel in half precision compute in float32 between casts.

    %y = conv(%x, @w) : bf16[1,4,6,6]   ->   %y_1 = cast(%x) {to="float32"}
                                             %y_2 = cast(@w) {to="float32"}
                                             %y_3 = conv(%y_1, %y_2) : f32[1,4,6,6]
                                             %y = cast(%y_3) {to="bfloat16"} : bf16[1,4,6,6]

Values and weights stay in half precision wherever they are stored, and each result is rounded to
it, so the file computes what torch computes: it too sums in float32. The tables say which kernels
ONNX Runtime 1.32 has on a CPU; each was found by running the operator.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate, map_arg

from fxquant.backends.onnx.dialect import elementwise, operator_of
from fxquant.ir.edit import inherit
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.registry import register_pass

BFLOAT16 = frozenset({
    "Cast", "Concat", "Gather", "GatherElements", "GatherND", "Identity", "IsInf", "IsNaN",
    "LayerNormalization", "Pad", "Reshape", "ScatterElements", "ScatterND", "Shape", "Sign",
    "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""The only operators with kernels for bfloat16."""

NOT_FLOAT16 = frozenset({"Celu"})
"""Operators without a kernel for float16."""


def has_kernel(name: str, dtype: torch.dtype) -> bool:
    """Whether ONNX Runtime has a kernel on a CPU for an operator of the standard.

    >>> has_kernel("Conv", torch.float16), has_kernel("Conv", torch.bfloat16)
    (True, False)
    """
    return name in BFLOAT16 if dtype == torch.bfloat16 else name not in NOT_FLOAT16


@register_pass
@dataclass(frozen=True)
class WidenOperators(Pass):
    """%y = relu(%x) : bf16[4]  ->  %y = cast(relu(cast(%x) {to="float32"})) {to="bfloat16"}"""

    name: ClassVar[str] = "widen-operators"
    requires: ClassVar[frozenset[str]] = frozenset({"onnx"})
    semantics: ClassVar[Semantics] = close(5e-2)  # torch rounds some results twice

    def run(self, graph_module: GraphModule) -> PassResult:
        widener = _Widener(graph_module)
        for node in list(graph_module.graph.nodes):
            if node.op == "call_function" and node.target is not operator.getitem:
                widener.visit(node)
        return PassResult(graph_module, widener.changed)


class _Widener:
    def __init__(self, root: GraphModule) -> None:
        self.graph = root.graph
        self.wide: dict[Node, Node] = {}
        self.changed = False

    def visit(self, node: Node) -> None:
        dtypes = {_dtype(each) for each in (node, *node.all_input_nodes)}
        narrow = next((each for each in dtypes if each in (torch.float16, torch.bfloat16)), None)
        assert callable(node.target)
        if narrow is None or has_kernel(operator_of(node.target).name, narrow):
            return
        self.changed = True
        node.args = map_arg(node.args, self._widened)
        value = node.meta["val"]
        node.meta["val"] = map_aggregate(value, _float32)
        if not isinstance(value, Tensor):
            for part in list(node.users):
                part.meta["val"] = _float32(part.meta["val"])
                self._narrowed(part, narrow)
        elif value.dtype == narrow:
            self._narrowed(node, narrow)

    def _widened(self, value: Node) -> Node:
        if _dtype(value) not in (torch.float16, torch.bfloat16):
            return value
        if value not in self.wide:
            with self.graph.inserting_after(value):
                self.wide[value] = self._cast(value, torch.float32)
        return self.wide[value]

    def _narrowed(self, node: Node, dtype: torch.dtype) -> None:
        """Let the users of a value read it in half precision, under its old name."""
        with self.graph.inserting_after(node):
            cast = self._cast(node, dtype)
        node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)
        name = node.name
        node._rename(f"{name}_wide")
        cast._rename(name)

    def _cast(self, value: Node, dtype: torch.dtype) -> Node:
        target, to = elementwise.cast, str(dtype).removeprefix("torch.")
        node = self.graph.create_node("call_function", target, (value,), {"to": to})
        inherit(node, value, value=False)
        node.meta["val"] = value.meta["val"].to(dtype)
        return node


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        value = value[0]
    return value.dtype if isinstance(value, Tensor) else None


def _float32(value: Any) -> Any:
    narrow = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if narrow else value
