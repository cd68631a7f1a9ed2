"""The units of mixed precision: an operator with the activation fused into it.

%conv = conv2d(%x, @w)  !int8 fused into %relu
%relu = relu(%conv)     !int8                       one layer, named `conv`
%pool = max_pool2d(%relu)  !int8 carried(self)      no layer: it moves values
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.fx import GraphModule, Node

from fxquant.errors import CalibrationError
from fxquant.ir.aten import is_aten, named_arguments, packet_name
from fxquant.ir.edit import is_attribute, tensor_at
from fxquant.ir.source import source_of, source_text
from fxquant.ir.state import state_of
from fxquant.passes.free_precision import MOVES_FLOAT
from fxquant.quant.constraints import (
    ConstraintTable,
    annotation_of,
    is_getitem,
    operator_name,
    roles,
)
from fxquant.quant.spec import FLOAT32, Precision


@dataclass(frozen=True)
class Layer:
    """One operator that computes in integers, with what is fused into it.

    Attributes:
        name: of the node that computes.
        nodes: names of all its nodes, in order.
        operator: what it computes.
        module: the user's module path.
        source: the user's line.
        precision: what annotate decided.
        weights: elements of its constant weights.
        biases: elements of its bias.
        macs: multiplications with additions in one call.
        elements: of its output.
        depthwise: a convolution with one channel a group.
    """

    name: str
    nodes: tuple[str, ...]
    operator: str
    module: str
    source: str
    precision: Precision
    weights: int
    biases: int
    macs: int
    elements: int
    depthwise: bool

    def weight_bytes(self, precision: Precision) -> int:
        """Bytes of weights and bias in the file.

        4-bit weights are packed two a byte. A bias is int32 or float32, but int64 beside 16-bit
        activations.
        """
        bits = {"int4": 4, "int8": 8, "uint8": 8, "int16": 16, "float16": 16, "bfloat16": 16}
        stored = 32 if precision.weights is None else bits[precision.weights.dtype]
        wide = precision.activations is not None and precision.activations.dtype == "int16"
        return math.ceil(self.weights * stored / 8) + (8 if wide else 4) * self.biases

    def assigned(self, precision: Precision) -> dict[str, Precision]:
        """What its nodes compute in for it to have a precision, by name.

        Where only weights are narrow, the activation behind them stays in float.
        """
        others = precision if precision.quantized else FLOAT32
        return {name: precision if name == self.name else others for name in self.nodes}

    @cached_property
    def place(self) -> str:
        """Where it stands, for tables: the module path, or the node."""
        return self.module or self.name


def layers_of(graph_module: GraphModule, *, floats: bool = False) -> list[Layer]:
    """The layers of an annotated graph (and those in float), in order.

    Raises:
        CalibrationError: the graph was not prepared.
    """
    if "annotated" not in state_of(graph_module).properties:
        raise CalibrationError(
            "the graph has no observers", fix="give what prepare(model, …) returned"
        )
    waiting: dict[str, list[Node]] = {}
    chains: list[list[Node]] = []
    for node in graph_module.graph.nodes:
        annotation = annotation_of(node)
        if annotation is None or annotation.output.moves or is_getitem(node):
            continue
        if not annotation.quantized and (not floats or annotation.reason == MOVES_FLOAT):
            continue
        chain = [*waiting.pop(node.name, []), node]
        if annotation.fused_into is None:
            chains.append(chain)
        else:
            waiting[annotation.fused_into] = [*waiting.get(annotation.fused_into, []), *chain]
    return [_layer(graph_module, chain) for chain in chains]


def _layer(root: GraphModule, chain: list[Node]) -> Layer:
    head, end = chain[0], chain[-1]
    source = source_of(head)
    annotation = annotation_of(head)
    assert annotation is not None
    weights, biases = _constants(root, chain)
    return Layer(
        head.name,
        tuple(node.name for node in chain),
        operator_name(head, root),
        source.path if source is not None else "",
        source_text(head) or "",
        annotation.precision,
        weights,
        biases,
        sum(macs(node) for node in chain),
        _elements(end),
        _is_depthwise(head),
    )


def _constants(root: GraphModule, chain: list[Node]) -> tuple[int, int]:
    """Elements of constant operands: weights, and biases."""
    weights = biases = 0
    for node in chain:
        for operand, role in roles(node):
            stored = _stored(operand.node)
            if stored is not None:
                count = tensor_at(root, stored).numel()
                weights += 0 if role.kind == "int32" else count
                biases += count if role.kind == "int32" else 0
    return weights, biases


def _stored(node: Node) -> Node | None:
    """The constant that an operand is, also behind its FakeQuantize."""
    if node.op == "call_module" and len(node.all_input_nodes) == 1:
        (node,) = node.all_input_nodes
    return node if is_attribute(node) else None


def _elements(node: Node) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, torch.Tensor) else 0


def macs(node: Node) -> int:
    """Multiplications with additions of a convolution, linear layer or product; 0 for others."""
    if not is_aten(node):
        return 0
    named = named_arguments(node)
    weight = named.get("weight")
    if isinstance(weight, Node) and "groups" in named:
        shape = weight.meta["val"].shape
        transposed = "output_padding" in named
        source = named["input"] if transposed else node
        return _elements(source) * int(shape.numel() // shape[0])
    name = packet_name(node.target)
    if isinstance(weight, Node) and name == "linear":
        return _elements(node) * int(weight.meta["val"].shape[-1])
    if name in {"matmul", "bmm", "mm"}:
        return _elements(node) * int(node.all_input_nodes[0].meta["val"].shape[-1])
    return 0


def _is_depthwise(node: Node) -> bool:
    groups = named_arguments(node).get("groups", 1) if is_aten(node) else 1
    return isinstance(groups, int) and groups > 1


def can_compute(root: GraphModule, layer: Layer, precision: Precision) -> bool:
    """Whether the target has kernels for a layer in another precision."""
    if precision.form == "float":
        return True
    table = state_of(root).constraints
    if not isinstance(table, ConstraintTable):
        return False
    nodes = {node.name: node for node in root.graph.nodes}
    rows = {name: table.row_of(nodes[name], root) for name in layer.nodes}
    own = rows[layer.name]
    fits = own is not None and own.weights is not None and own.weights.problem(precision) is None
    if precision.form != "static":
        return fits and layer.weights > 0
    dtype = precision.activations.dtype if precision.activations is not None else ""
    known = all(row is not None and dtype in row.dtypes for row in rows.values())
    weightless = own is None or own.weights is None or not layer.weights
    return known and (fits or weightless)
