"""Explicit padding that the next operator can do itself, and padding of padding.

    %p = pad(%x) {paddings=((0,0),(0,1),(0,1),(0,0))}
    %y = conv_2d(%p, …) {stride 2, VALID}   ->   %y = conv_2d(%x, …) {stride 2, SAME}

Exact: SAME pads the same cells with the same zeros, which add nothing to a sum of products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.edit import note_pass
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass

Pads = tuple[tuple[int, int], ...]
CONVOLUTIONS = frozenset({tfl.conv_2d, tfl.depthwise_conv_2d})


@register_pass
@dataclass(frozen=True)
class MergePads(Pass):
    """PAD into the SAME padding of a convolution, PAD behind PAD into one.

    graph(%x: f32[1,8,8,3]):                        graph(%x: f32[1,8,8,3]):
      %p = pad(%x, ((0,0),(1,1),(1,1),(0,0)))   ->    %y = conv_2d(%x, @w, @b) {padding="SAME"}
      %y = conv_2d(%p, @w, @b) {padding="VALID"}      return (%y)
      return (%y)
    """

    name: ClassVar[str] = "merge-pads"
    requires: ClassVar[frozenset[str]] = frozenset({"tfl"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            modified |= _join_pads(node) or _into_convolution(node)
        return PassResult(graph_module, modified)


def paddings_of(node: Node) -> Pads:
    """The cells before and after each axis that a PAD adds."""
    given: Any = node.kwargs.get("paddings", node.args[1] if len(node.args) > 1 else ())
    return tuple((int(before), int(after)) for before, after in given)


def _padded(node: object) -> Node | None:
    """The operand that is a PAD, if an argument is one."""
    return node if isinstance(node, Node) and node.target is tfl.pad else None


def _join_pads(node: Node) -> bool:
    inner = _padded(node.args[0]) if node.target is tfl.pad else None
    if inner is None or len(inner.users) > 1:
        return False
    both = tuple(
        (a + c, b + d) for (a, b), (c, d) in zip(paddings_of(inner), paddings_of(node), strict=True)
    )
    node.args = (inner.args[0],)
    node.kwargs = {"paddings": both}
    _finish(node, inner)
    return True


def _into_convolution(node: Node) -> bool:
    pad = _padded(node.args[0]) if node.target in CONVOLUTIONS else None
    if pad is None or node.kwargs.get("padding", "SAME") != "VALID":
        return False
    pads = paddings_of(pad)
    if any(pads[0]) or any(pads[3]) or not _is_same(node, pad, pads[1:3]):
        return False
    node.update_arg(0, pad.args[0])
    node.update_kwarg("padding", "SAME")
    _finish(node, pad)
    return True


def _is_same(node: Node, pad: Node, pads: Sequence[tuple[int, int]]) -> bool:
    source, weights = pad.args[0], node.args[1]
    assert isinstance(source, Node) and isinstance(weights, Node)
    sizes, kernel = source.meta["type"].shape[1:3], weights.meta["type"].shape[1:3]
    places = node.meta["type"].shape[1:3]
    for n, letter in enumerate("hw"):
        stride: Any = node.kwargs.get(f"stride_{letter}", 1)
        dilation: Any = node.kwargs.get(f"dilation_{letter}_factor", 1)
        missing = max((places[n] - 1) * stride + (kernel[n] - 1) * dilation + 1 - sizes[n], 0)
        if -(-sizes[n] // stride) != places[n] or pads[n][0] != missing // 2:
            return False
    return True


def _finish(node: Node, pad: Node) -> None:
    note_pass(node, pad.meta.get("passes", ()))
    if not pad.users:
        pad.graph.erase_node(pad)
