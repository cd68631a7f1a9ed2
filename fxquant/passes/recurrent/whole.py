"""A layer that is written step by step and still is one operator of the target.

    %u_1 = linear(%h_0, @u, @c)   !int8 fused into %lstm_l0_h_27       weights: one scale a gate
    %c_1 = add(%kept_1, %new_1)   !int8                                16 bits, a power of two
    %h_1 = mul(%o_1, %bent_1)     !int8

In a layer of the precision `dynamic` the products have integer weights and all else is float.
Only what the target's operator stores between steps is put on a grid: the states.
`unroll-recurrent` notes the place of each node; annotate decides by it, and `roll-recurrent` finds
the layer again.
Where a rule gives a part of the layer another precision, the layer is steps like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from torch.fx import GraphModule, Node

from fxquant.ir.edit import is_attribute, tensor_at
from fxquant.ir.recurrent import Recurrent
from fxquant.ir.state import state_of
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import Annotation, ConstraintTable, Row, is_getitem
from fxquant.quant.spec import Precision, QuantSpec

KEY = "place"
PRODUCTS = ("x", "u")
"""The parts that have weights."""


class Place(NamedTuple):
    """Where a node stands in a layer.

    Attributes:
        layer: name of one layer in one direction.
        part: what the node is in a step, e.g. `u` or `h`; empty for what only moves values.
        backwards: whether the layer goes from the last step to the first.
    """

    layer: str
    part: str
    backwards: bool


def place_of(node: Node) -> Place | None:
    """A node's place in a layer; None outside."""
    found = node.meta.get(KEY)
    return found if isinstance(found, Place) else None


def layers_of(graph_module: GraphModule) -> dict[str, list[Node]]:
    """The nodes of each layer, in order."""
    found: dict[str, list[Node]] = {}
    for node in graph_module.graph.nodes:
        place = place_of(node)
        if place is not None:
            found.setdefault(place.layer, []).append(node)
    return found


def why_not_whole(
    root: GraphModule, node: Node, view: Recurrent, precision: Precision
) -> str | None:
    """Why a recurrent operator cannot be one operator of a target; None if it can."""
    every = [weights for layer in view.weights for weights in layer]
    values = [part for weights in every for part in weights if part is not None]
    if view.is_cell:
        return "it is a single step"
    if any(weights.projection is not None for weights in every):
        return "its outputs are projected"
    if not all(map(is_attribute, values)):
        return "its weights are computed"
    if precision.form == "dynamic":  # its states are float
        return None
    if any(not is_zero(root, state) for state in view.states):
        return "its states are inputs"
    if any(is_getitem(user) and user.args[1] == 2 for user in node.users):
        return "its last cell state is read"
    return None


def is_zero(root: GraphModule, value: Node) -> bool:
    """Whether a value is a stored tensor of zeros."""
    return is_attribute(value) and not bool(tensor_at(root, value).detach().any())


def wants_whole(root: GraphModule, kind: str, precision: Precision) -> bool:
    """Whether configuration and target would have a layer of this kind as one operator."""
    state = state_of(root)
    fused = isinstance(state.config, QuantConfig) and state.config.recurrent == "fused"
    table = state.constraints
    if not fused or not isinstance(table, ConstraintTable):
        return False
    if _is_int8(precision, "dynamic"):
        return kind in table.dynamic_layers
    return _is_int8(precision) and kind in table.whole_layers


def _is_int8(precision: Precision, form: str = "static") -> bool:
    specs = precision.activations, precision.weights
    return precision.form == form and all(s is not None and s.dtype == "int8" for s in specs)


def annotated(
    root: GraphModule, table: ConstraintTable, found: Mapping[Node, Annotation]
) -> Iterator[tuple[Node, Annotation]]:
    """The annotations of nodes in whole layers, where all parts compute in int8."""
    for nodes in layers_of(root).values():
        parts = [node for node in nodes if node in found]
        if all(found[node].quantized and _is_int8(found[node].precision) for node in parts):
            end = next(node for node in reversed(parts) if _part(node) == "h")
            for node in parts:
                yield node, _within(found[node], _part(node), end, table.whole_layers["lstm"])
        elif all(map(_is_dynamic, parts, (found[node] for node in parts))):
            for node in parts:
                if _part(node) in PRODUCTS:
                    yield node, replace(found[node], precision=_by_gates(found[node].precision))
        else:
            for node in nodes:
                del node.meta[KEY]


def _is_dynamic(node: Node, annotation: Annotation) -> bool:
    """Whether a part is what it is in a layer of float values and integer weights."""
    if _part(node) in PRODUCTS:
        return _is_int8(annotation.precision, "dynamic")
    return annotation.precision.form == "float"


def _by_gates(precision: Precision) -> Precision:
    """With one scale for the weights of each gate."""
    assert precision.weights is not None
    return replace(precision, weights=replace(precision.weights, observer="gates"))


def _part(node: Node) -> str:
    place = place_of(node)
    return "" if place is None else place.part


def _within(annotation: Annotation, part: str, end: Node, cell: QuantSpec) -> Annotation:
    """What becomes of a node's annotation in a whole layer."""
    plain = annotation.precision
    if part == "h":
        return annotation
    if part == "c":
        return replace(annotation, precision=replace(plain, activations=cell), row=Row())
    if part in PRODUCTS:
        return replace(annotation, precision=_by_gates(plain), fused_into=end.name)
    inner = replace(plain, activations=cell) if part in {"kept", "bent"} else plain
    return replace(annotation, precision=inner, row=Row(), fused_into=end.name)
