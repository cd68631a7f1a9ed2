"""Let an operator clamp its own result instead of a RELU behind it.

    %c = conv_2d(%x, @w, @b)
    %y = relu6(%c)              ->   %y = conv_2d(%x, @w, @b) {fused_activation_function="RELU6"}

Exact: the operator clamps what it computes before storing it. For integers only where the
activation does not change scale and zero point; one that its grid makes idle is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.edit import note_pass
from fxquant.ir.types import TensorType
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass

ACTIVATIONS: dict[Callable[..., Any], tuple[str, float, float]] = {
    tfl.relu: ("RELU", 0.0, float("inf")),
    tfl.relu6: ("RELU6", 0.0, 6.0),
    tfl.relu_n1_to_1: ("RELU_N1_TO_1", -1.0, 1.0),
}
PRODUCERS: frozenset[Callable[..., Any]] = frozenset(
    {
        tfl.conv_2d,
        tfl.depthwise_conv_2d,
        tfl.transpose_conv,
        tfl.fully_connected,
        tfl.add,
        tfl.sub,
        tfl.mul,
        tfl.div,
        tfl.average_pool_2d,
        tfl.max_pool_2d,
    }
)
PASSING: frozenset[Callable[..., Any]] = frozenset({tfl.transpose, tfl.reshape})
"""What an activation may be moved across, for it only moves data."""


@register_pass
@dataclass(frozen=True)
class FuseActivation(Pass):
    """Fuse RELU, RELU6 and RELU_N1_TO_1 into the operator before, and drop idle ones.

    graph(%x: f32[1,4]):
      %a = add(%x, @b) : f32[1,4]
      %y = relu(%a) : f32[1,4]
      return (%y)
    ->
    graph(%x: f32[1,4]):
      %a = add(%x, @b) {fused_activation_function="RELU"} : f32[1,4]
      return (%a)
    """

    name: ClassVar[str] = "fuse-activation"
    requires: ClassVar[frozenset[str]] = frozenset({"tfl"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            if node.target in ACTIVATIONS and (_is_idle(node) or _fuse(node)):
                _remove(node)
                modified = True
        return PassResult(graph_module, modified)


def _is_idle(node: Node) -> bool:
    """Whether every integer of the operand lies between the activation's bounds."""
    before, after = _operand(node).meta["type"], node.meta["type"]
    if before != after or before.quantization is None:
        return False
    _, least, greatest = ACTIVATIONS[node.target]  # type: ignore[index]
    limits = torch.iinfo(before.dtype)
    scale, zero_point = before.quantization.scale[0], before.quantization.zero_point[0]
    low, high = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale
    return bool(low >= least and high <= greatest)


def _fuse(node: Node) -> bool:
    producer = _producer(_operand(node))
    if producer is None or not _same_grid(producer.meta["type"], node.meta["type"]):
        return False
    word = ACTIVATIONS[node.target][0]  # type: ignore[index]
    producer.update_kwarg("fused_activation_function", word)
    note_pass(producer)
    return True


def _producer(node: Node) -> Node | None:
    """The operator that can clamp, seen through moves that nothing else reads."""
    while len(node.users) == 1 and node.target in PASSING:
        node = _operand(node)
    fusable = node.target in PRODUCERS and len(node.users) == 1
    return (
        node if fusable and node.kwargs.get("fused_activation_function", "NONE") == "NONE" else None
    )


def _same_grid(before: TensorType, after: TensorType) -> bool:
    if before.dtype != after.dtype or before.quantization != after.quantization:
        return False
    return before.dtype.is_floating_point or before.quantization is not None


def _operand(node: Node) -> Node:
    operand = node.args[0]
    assert isinstance(operand, Node)
    return operand


def _remove(node: Node) -> None:
    operand = _operand(node)
    for name in node.meta.get("passes", ()):
        if name not in operand.meta.get("passes", ()):
            note_pass(operand, (name,))
    node.replace_all_uses_with(operand)
    node.graph.erase_node(node)
