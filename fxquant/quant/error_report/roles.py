"""What each node of a quantized graph is to the error report.

%x_fq = fake_quantize(%x)            rounds        ends the layer before it
%w_fq = fake_quantize(@w)            constant      as everything that depends on no input
%conv = conv2d(%x_fq, %w_fq, @b)     inner         %relu ends the operator
%relu = relu(%conv)                  inner         %relu_fq rounds it
%pool = max_pool2d(%relu_fq)         moves         computes nothing
%erf = erf(%relu_fq)                 ends          a layer that nothing rounds
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.aten import packet_name
from fxquant.ir.edit import get_attribute
from fxquant.quant.constraints import annotation_of, is_float, is_getitem
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.stubs import DeQuantStub, QuantStub

FROZEN = (
    "fake_quantize_per_tensor_affine",
    "fake_quantize_per_channel_affine",
    "dynamic_quantize",
)
"""What `freeze` makes of a FakeQuantize."""


CAST = "_to_copy"
"""Twice of which, to fewer bits and back, it makes of one that rounds floats."""


def is_16_bits(value: Any) -> bool:
    """Whether a value is floating point of 16 bits."""
    return isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)


class Part(Enum):
    """What a node is to the report."""

    INPUT = auto()
    CONSTANT = auto()
    ROUNDS = auto()
    INNER = auto()
    MOVES = auto()
    LEAVES = auto()
    ENDS = auto()


@dataclass
class Roles:
    """The part of each node, by name.

    Attributes:
        root: the graph.
        parts: by node name; the output node has none.
        rounding: the nodes that put a value or a constant on its grid.
        ends_in: node name -> the activation that it is fused into.
    """

    root: GraphModule
    parts: dict[str, Part] = field(default_factory=dict)
    rounding: set[str] = field(default_factory=set)
    ends_in: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(root: GraphModule) -> Roles:
        """The roles in a prepared or converted graph."""
        roles = Roles(root)
        nodes = [node for node in root.graph.nodes if node.op != "output"]
        roles.rounding = {node.name for node in nodes if rounds(root, node)}
        constants = _constants(nodes)
        for node in nodes:
            constant = node in constants
            roles.parts[node.name] = Part.CONSTANT if constant else roles._part(node)
            annotation = annotation_of(node)
            if annotation is not None and annotation.fused_into is not None:
                roles.ends_in[node.name] = annotation.fused_into
        return roles

    def is_rounded(self, node: Node) -> bool:
        """Whether a node gives a value that was put on its grid, right there or just before."""
        if node.name in self.rounding:
            return True
        return _is_back(node) and node.all_input_nodes[0].name in self.rounding

    def _part(self, node: Node) -> Part:
        if node.op == "placeholder":
            return Part.INPUT
        if node.name in self.rounding:
            return Part.ROUNDS
        if node.op == "call_module":
            module = get_attribute(self.root, str(node.target))
            if isinstance(module, QuantStub | DeQuantStub):
                return Part.MOVES if isinstance(module, QuantStub) else Part.LEAVES
        annotation = annotation_of(node)
        quantized = annotation is not None and annotation.quantized
        if (
            is_getitem(node)
            or _is_back(node)
            or (annotation is not None and quantized and annotation.output.kind == "carried")
        ):
            return Part.MOVES
        fused = annotation is not None and annotation.fused_into is not None
        rounded = any(user.name in self.rounding for user in node.users)
        return Part.INNER if fused or rounded or not is_float(node) else Part.ENDS


def _constants(nodes: list[Node]) -> set[Node]:
    """The nodes whose value depends on no input."""
    found: set[Node] = set()
    for node in nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr" or (sources and all(source in found for source in sources)):
            found.add(node)
    return found


def rounds(root: GraphModule, node: Node) -> bool:
    """Whether a node puts a value on its grid, as a module or frozen."""
    if node.op == "call_module":
        return isinstance(get_attribute(root, str(node.target)), FakeQuantize)
    if node.op != "call_function":
        return False
    return packet_name(node.target) in FROZEN or _is_narrowing(node)


def _is_narrowing(node: Node) -> bool:
    """Whether a node is the first cast of a frozen rounding: to 16 bits, and back."""
    is_cast = node.op == "call_function" and packet_name(node.target) == CAST
    return is_cast and "freeze" in node.meta.get("passes", ()) and is_16_bits(node.meta["val"])


def _is_back(node: Node) -> bool:
    """Whether a node is the second cast of a frozen rounding."""
    is_cast = node.op == "call_function" and packet_name(node.target) == CAST
    return is_cast and _is_narrowing(node.all_input_nodes[0])
