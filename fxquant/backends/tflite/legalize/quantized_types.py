"""Which core values are integers in the file, and on which grid.

    %conv = conv2d(%q, %qw, @b)                                  i8<0.02,-128>, as relu
    %relu = relu(%conv)                                          i8<0.02,-128>
    %fq = fake_quantize_per_tensor_affine(%relu) {scale=0.02, …} i8<0.02,-128>

A value takes the grid of the fake-quantize that follows it, data movement that of its operand, and
an operator before its activation that of the activation's result. Everything else is float.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

import fxquant.quant.narrow  # noqa: F401 - declares the operator of dynamic grids
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.aten import aten, is_aten, named_arguments, overload
from fxquant.ir.edit import get_attribute
from fxquant.quant.stubs import DeQuantStub, QuantStub

from .grids import float32
from .modules import PASSING
from .registry import RULES

PER_TENSOR = aten.fake_quantize_per_tensor_affine.default
PER_CHANNEL = aten.fake_quantize_per_channel_affine.default
DYNAMIC = torch.ops.fxquant.dynamic_quantize.default
FUSABLE = frozenset(
    {
        aten.relu.default,
        aten.relu6.default,
        aten.hardtanh.default,
        aten.clamp.default,
        aten.clamp_min.default,
    }
)
PRODUCERS = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv1d.padding,
        aten.conv2d.padding,
        aten.conv_transpose1d.default,
        aten.conv_transpose2d.input,
        aten.linear.default,
        aten.add.Tensor,
        aten.add.Scalar,
        aten.sub.Tensor,
        aten.sub.Scalar,
        aten.mul.Tensor,
        aten.mul.Scalar,
    }
)
DTYPES = {(-128, 127): "int8", (-127, 127): "int8", (0, 255): "uint8", (-8, 7): "int4"}


def is_fake_quantize(node: object) -> bool:
    """Whether a node puts its operand on a grid."""
    return isinstance(node, Node) and node.target in (PER_TENSOR, PER_CHANNEL)


def grid(node: Node) -> QType:
    """The grid of a per-tensor fake-quantize node, its scale as float32 holds it."""
    named = named_arguments(node)
    low, high = int(named["quant_min"]), int(named["quant_max"])
    dtype = DTYPES.get((low, high), "int16" if high > 255 else "int8")
    return QType(dtype, float32(float(named["scale"])), int(named["zero_point"]))


def is_stub(graph_module: GraphModule, node: Node, kind: type) -> bool:
    """Whether a node calls a QuantStub or a DeQuantStub."""
    return node.op == "call_module" and isinstance(
        get_attribute(graph_module, str(node.target)), kind
    )


def quantized_types(graph_module: GraphModule) -> dict[Node, QType]:
    """The grid of every core value that is integers in the file."""
    found: dict[Node, QType] = {}
    for node in graph_module.graph.nodes:
        kind = _type(graph_module, node, found)
        if kind is not None:
            found[node] = kind
    return found


def _type(graph_module: GraphModule, node: Node, found: dict[Node, QType]) -> QType | None:
    if node.target is PER_TENSOR:
        return grid(node)
    if node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem":
        source = node.args[0]
        return found.get(source) if isinstance(source, Node) else None
    if node.op == "call_module" and type(get_attribute(graph_module, str(node.target))) in PASSING:
        return _first_type(node, found)
    rule = RULES.get(overload(node)) if is_aten(node) else None
    if rule is None or rule.mode == "float" or not _operands_are_integers(node, found):
        return None
    if rule.mode == "moves":
        return _first_type(node, found)
    return _following(node)


def _operands_are_integers(node: Node, found: dict[Node, QType]) -> bool:
    """Whether every float operand is on a grid or constant, and one at least is on a grid."""
    floats = [operand for operand in node.all_input_nodes if _is_float(operand)]
    variable = [operand for operand in floats if not is_constant(operand)]
    return any(operand in found for operand in floats) and all(n in found for n in variable)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        value = value[0]
    return not isinstance(value, torch.Tensor) or value.dtype.is_floating_point


def is_constant(node: Node) -> bool:
    """Whether a value is a stored tensor, fake-quantized or not."""
    if is_fake_quantize(node):
        return isinstance(node.args[0], Node) and is_constant(node.args[0])
    return node.op == "get_attr"


def _first_type(node: Node, found: dict[Node, QType]) -> QType | None:
    floats = (operand for operand in node.all_input_nodes if _is_float(operand))
    return next((found[operand] for operand in floats if operand in found), None)


def _following(node: Node) -> QType | None:
    """The grid of the fake-quantize after a node, or after the activation that follows it."""
    for user in node.users:
        if user.target is PER_TENSOR:
            return grid(user)
    if len(node.users) == 1 and node.target in PRODUCERS:
        (user,) = node.users
        if user.target in FUSABLE and user.args[0] is node:
            return _following(user)
    return None


__all__ = ["DeQuantStub", "QuantStub", "quantized_types"]
