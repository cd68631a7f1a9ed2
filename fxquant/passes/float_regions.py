"""What stands where operators compute in float: dynamic grids before them, rounding behind them.

    %y = linear(%x, @w)  !dynamic    %x_fq = fake_quantize<int8 dynamic>(%x)
                                     %y = linear(%x_fq, %w_fq)

    %y = add(%x, %c)     !bfloat16   %x_fq = fake_quantize<bfloat16>(%x)
    %z = relu(%y)        !bfloat16   %y = add(%x_fq, %c_fq)
                                     %z = relu(%y); %z_fq = fake_quantize<bfloat16>(%z)

Rounding needs no demands of a target. It stands behind every operator that computes, before its
inputs where they are not rounded yet, and nowhere behind operators that only move values. Biases
stay as they are: sums are float32 everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.edit import is_attribute
from fxquant.quant.constraints import (
    Annotation,
    annotation_of,
    is_float,
    is_getitem,
    roles,
)
from fxquant.quant.spec import Precision, QuantSpec


def dynamic_spec(node: Node) -> tuple[Node, QuantSpec] | None:
    """The input that an operator's kernel quantizes itself, and how; None for other operators."""
    annotation = annotation_of(node)
    dynamic = annotation is not None and annotation.precision.form == "dynamic"
    return dynamic_operand(node, annotation.precision) if annotation and dynamic else None


def dynamic_operand(node: Node, precision: Precision) -> tuple[Node, QuantSpec] | None:
    """The same for a node that may be annotated otherwise, in a dynamic precision.

    Where the target says nothing else, as many of the last dimensions share a grid as the weights
    have besides that of the output channels: a row of a dense layer, a sample of an image.
    """
    found = list(roles(node))
    weights = next((o.node for o, role in found if role.kind == "symmetric"), None)
    value = next((o.node for o, role in found if role.kind == "asymmetric"), None)
    annotation, spec = annotation_of(node), precision.activations
    if weights is None or value is None or spec is None or annotation is None:
        return None
    assert annotation.row is not None and annotation.row.weights is not None
    dims_of = annotation.row.weights.dims
    dims = tuple(range(1 - _rank(weights), 0)) if dims_of is None else dims_of(node)
    return value, spec.over(dims)


def _rank(node: Node) -> int:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value.dim()


Rounding = tuple[Node, QuantSpec, list[Node]]


def rounded_values(root: GraphModule) -> Iterator[Rounding]:
    """Every value to be rounded, how, and which of its users then read the rounded one."""
    entering: dict[tuple[Node, QuantSpec], list[Node]] = {}
    for node in list(root.graph.nodes):
        annotation = _rounded(node)
        if annotation is None:
            continue
        if _computes(node, annotation):
            assert annotation.precision.activations is not None
            yield node, annotation.precision.activations, list(node.users)
        for (_, value), role in roles(node):
            spec = _entering_spec(value, annotation)
            if spec is not None and role.kind == "int32":  # a bias is added in full precision
                continue
            if spec is not None:
                entering.setdefault((value, spec), []).append(node)
    for (value, spec), users in entering.items():
        yield value, spec, users


def _rounded(node: Node) -> Annotation | None:
    annotation = annotation_of(node)
    rounds = annotation is not None and annotation.precision.form == "rounded"
    return annotation if rounds else None


def _computes(node: Node, annotation: Annotation) -> bool:
    """Whether a node's single result can leave the narrow dtype."""
    if not is_float(node) or annotation.fused_into is not None:
        return False
    if isinstance(node.meta.get("val"), list | tuple):
        return False
    if is_getitem(node):
        source = node.args[0]
        assert isinstance(source, Node)
        annotation = _rounded(source) or annotation
    return not annotation.output.moves


def _entering_spec(value: Node, annotation: Annotation) -> QuantSpec | None:
    """How an operand is rounded before a rounded operator; None where it is rounded already."""
    if is_attribute(value):
        return annotation.precision.weights
    several = isinstance(value.meta.get("val"), list | tuple)
    return None if several or _rounded(value) is not None else annotation.precision.activations
