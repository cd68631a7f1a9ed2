"""What a target can compute in integers, as a table that the passes read.

One row per core operator says what each tensor argument and the output must be:

    "conv2d":  row(input=asymmetric, weight=symmetric(axis=0), bias=int32("input*weight"))
    "softmax": row(self=asymmetric, output=fixed(int8=(1 / 256, -128)))
    "cat":     row(tensors=shared, output=shared)
    "reshape": row(self=asymmetric, output=carried("self"))

    "conv2d":  row(…, weights=WeightForms(static=("int8", "int4"), dynamic=("int8",)))

An operator may have several rows; the first whose `when` holds of the node counts. `refused(why)`
is a row too: it keeps an operator in float, and its reason is what the user reads.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.aten import is_aten, named_arguments, packet_name
from fxquant.ir.edit import get_attribute
from fxquant.quant.costs import GENERIC, CostTable
from fxquant.quant.spec import Precision, QuantSpec

Kind = Literal["asymmetric", "symmetric", "int32", "same", "carried", "shared", "fixed", "plain"]


@dataclass(frozen=True)
class Role:
    """What one argument or output of an operator must be.

    Attributes:
        kind: `asymmetric` or `symmetric` (own parameters), `int32` (a bias), `same` (the
            parameters of
            another argument), `carried` (that argument's very values, only moved), `shared` (one
            set of parameters for all arguments of this kind), `fixed` (prescribed), `plain` (not
            quantized).
        axis: the channel axis of a constant, where parameters may be per channel.
        of: the argument that `same` and `carried` refer to, or the scale of an `int32`.
        values: dtype -> (scale, zero point) of `fixed`.
    """

    kind: Kind
    axis: int | None = None
    of: str = ""
    values: tuple[tuple[str, tuple[float, int]], ...] = ()

    def fixed_for(self, dtype: str) -> tuple[float, int] | None:
        """The prescribed parameters for a dtype; None where the role prescribes none."""
        return dict(self.values).get(dtype)

    @property
    def moves(self) -> bool:
        """Whether the output holds values of the arguments, unchanged."""
        return self.kind in {"carried", "shared"}

    def __str__(self) -> str:
        inner = f"axis={self.axis}" if self.axis is not None else self.of
        return f"{self.kind}({inner})" if inner else self.kind


asymmetric = Role("asymmetric")
shared = Role("shared")
plain = Role("plain")


def symmetric(axis: int | None = None) -> Role:
    """Zero point in the middle; with an axis, a constant with parameters per channel."""
    return Role("symmetric", axis=axis)


def int32(scale: str) -> Role:
    """A constant stored as int32 whose scale follows from other arguments, e.g. `input*weight`."""
    return Role("int32", of=scale)


def same_as(argument: str) -> Role:
    """The parameters of another argument; values are computed and so rounded again."""
    return Role("same", of=argument)


def carried(argument: str) -> Role:
    """The values of another argument, only moved, repeated or dropped."""
    return Role("carried", of=argument)


def fixed(**values: tuple[float, int]) -> Role:
    """Prescribed scale and zero point by dtype."""
    return Role("fixed", values=tuple(values.items()))


Check = Callable[[Node], "str | None"]
Condition = Callable[[Node], bool]


@dataclass(frozen=True)
class WeightForms:
    """The dtypes that the constant weights of an operator may have, by what computes with them.

    Attributes:
        static: beside integer activations on known grids.
        dynamic: beside float activations that the kernel quantizes itself.
        stored: turned to float before a float operator.
        reasons: why a form or a dtype is missing, by `dynamic`, `dynamic int4`, …
        dims: along which dimensions of a node's input a dynamic grid holds; None for the usual.
        per_channel: the forms whose kernels read one scale per channel, never one for all.
    """

    static: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()
    dims: Callable[[Node], tuple[int, ...]] | None = None
    per_channel: tuple[str, ...] = ()

    def problem(self, precision: Precision) -> str | None:
        """Why weights of a precision are impossible; None if they are possible."""
        form, spec = precision.form, precision.weights
        allowed = {"static": self.static, "dynamic": self.dynamic, "stored": self.stored}
        if spec is None or form not in allowed or spec.dtype in allowed[form]:
            return None
        known = dict(self.reasons)
        usual = f"there is no {form} form with {spec.dtype} weights"
        return known.get(f"{form} {spec.dtype}") or known.get(form) or usual


@dataclass(frozen=True)
class Row:
    """What a target demands of one operator.

    Attributes:
        operands: argument name -> role; tensor arguments without one are not quantized.
        output: the role of the result (of each result, where there are several).
        dtypes: the activation dtypes there is a kernel for.
        fuses: whether a clamp that follows can be part of the operator.
        when: the row counts only for nodes of which this holds.
        checks: what may still be wrong with a node; each returns the reason or None.
        reason: why the operator has no integer form at all.
        asked_only: whether its integer form is slower or coarser than float, so that it is taken
            only where integers are asked for (`QuantConfig.wants_integers`).
        in_steps: the activation dtypes in which it is several operators, which
            `write-integer-steps` writes.
        weights: what constant weights (operands that are `symmetric`) may be stored as; None:
            as a precision with integer activations says, and nothing else.
    """

    operands: Mapping[str, Role] = field(default_factory=dict)
    output: Role = asymmetric
    dtypes: tuple[str, ...] = ("int8",)
    fuses: bool = False
    when: Condition | None = None
    checks: tuple[Check, ...] = ()
    reason: str = ""
    weights: WeightForms | None = None
    asked_only: bool = False
    in_steps: tuple[str, ...] = ()

    def problem(self, node: Node) -> str | None:
        """Why this node cannot be computed in integers; None if it can."""
        if self.reason:
            return self.reason
        return next((why for why in (check(node) for check in self.checks) if why), None)


def row(
    *,
    output: Role = asymmetric,
    dtypes: tuple[str, ...] = ("int8",),
    fuses: bool = False,
    when: Condition | None = None,
    checks: tuple[Check, ...] = (),
    weights: WeightForms | None = None,
    **operands: Role,
) -> Row:
    """A row whose keyword arguments are the operator's tensor arguments.

    `weights` is the column of that name; an argument so called needs `Row(…)`.
    """
    return Row(operands, output, dtypes, fuses, when, checks, weights=weights)


def refused(reason: str, when: Condition | None = None) -> Row:
    """A row for an operator that stays in float, and why."""
    return Row(when=when, reason=reason)


@dataclass(frozen=True)
class ConstraintTable:
    """All rows of a target.

    Attributes:
        target: the backend's name, as it stands in messages.
        rows: operator name -> row, or several of which the first that holds counts.
        clamps: (low, high) of the activations that a row with `fuses` takes in.
        groups: names of fusions whose operators the target computes as one.
        free: operators without weights that are about as quick in float, so that they may stay
            float between float operators (see `passes.borders`).
        costs: what operators take in each precision.
        largest_ratio: of input scale * weight scale to output scale; None: no limit.
        whole_layers: recurrent layers that the target computes whole in integers, by kind: the
            spec of what they keep from step to step beside the output.
        dynamic_layers: kinds of those that it computes whole in float with integer weights.
        per_tensor: dtypes of weights of which the kernels read one scale, never one per channel.
    """

    target: str
    rows: Mapping[str, Row | tuple[Row, ...]]
    clamps: tuple[tuple[float, float], ...] = ()
    groups: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    costs: CostTable = GENERIC
    largest_ratio: float | None = None
    per_tensor: frozenset[str] = frozenset()
    whole_layers: Mapping[str, QuantSpec] = field(default_factory=dict)
    dynamic_layers: frozenset[str] = frozenset()

    def row_of(self, node: Node, root: GraphModule) -> Row | None:
        """The row that counts for a node; None if the target has none."""
        found = self.rows.get(operator_name(node, root), ())
        choices = found if isinstance(found, tuple) else (found,)
        return next((r for r in choices if r.when is None or r.when(node)), None)

    def fuses_into(self, node: Node, activation: Node) -> bool:
        """Whether a clamp right after an operator with `fuses` can be part of it."""
        return list(node.users) == [activation] and clamp_bounds(activation) in self.clamps


@dataclass(frozen=True)
class Annotation:
    """What was decided for one node, and why.

    Attributes:
        precision: what the operator computes in.
        reason: why; for float the obstacle, for integers the rule.
        row: the target's demands, where the node is quantized.
        fused_into: name of the activation that follows and ends the operator.
        asked: the precision that the rules ask for, where the target lacks it.
    """

    precision: Precision
    reason: str
    row: Row | None = None
    fused_into: str | None = None
    asked: Precision | None = None

    @property
    def quantized(self) -> bool:
        """Whether the node computes in integers."""
        return self.precision.quantized

    @property
    def output(self) -> Role:
        """The role of the node's result."""
        return plain if self.row is None else self.row.output

    def __str__(self) -> str:
        if self.asked is not None:
            return f"{self.precision} instead of {self.asked}: {self.reason}"
        if self.precision.form == "float":
            return f"{self.precision}: {self.reason}"
        if self.fused_into is not None:
            return f"{self.precision} fused into %{self.fused_into}"
        own = self.output.kind in {"asymmetric", "symmetric"}
        return f"{self.precision}" if own else f"{self.precision} {self.output}"


def annotation_of(node: Node) -> Annotation | None:
    """What annotate decided for a node; None for nodes that are not its business."""
    found = node.meta.get("annotation")
    return found if isinstance(found, Annotation) else None


ABSORBED = "absorbed"


def leader_of(node: Node) -> Node | None:
    """What a node that a layer takes in when it is frozen stands behind, e.g. a batch norm."""
    source = node.args[0] if ABSORBED in node.meta else None
    return source if isinstance(source, Node) else None


def explain(graph_module: GraphModule) -> dict[str, Annotation]:
    """The decision for every annotated node, by node name."""
    pairs = ((node.name, annotation_of(node)) for node in graph_module.graph.nodes)
    return {name: annotation for name, annotation in pairs if annotation is not None}


def operator_name(node: Node, root: GraphModule) -> str:
    """The name under which a table knows a node: `conv2d`, `getitem`, `Dropout`, …"""
    if node.op == "call_module":
        return type(get_attribute(root, str(node.target))).__name__
    return packet_name(node.target)


class Operand(NamedTuple):
    """One tensor argument of a node."""

    name: str
    node: Node


def operands_of(node: Node) -> list[Operand]:
    """Every argument that is a floating-point tensor, in order, lists opened."""
    if is_aten(node):
        arguments: Mapping[str, Any] = named_arguments(node)
    else:
        arguments = {"self": node.args[0]} if node.args else {}
    found: list[Operand] = []
    for name, value in arguments.items():
        items = value if isinstance(value, list | tuple) else (value,)
        found.extend(Operand(name, n) for n in items if isinstance(n, Node) and is_float(n))
    return found


def roles(node: Node) -> Iterator[tuple[Operand, Role]]:
    """The operands of an annotated node with the roles that its row gives them."""
    annotation = annotation_of(node)
    demands = {} if annotation is None or annotation.row is None else annotation.row.operands
    for operand in operands_of(node):
        yield operand, demands.get(operand.name, plain)


def is_float(node: Node) -> bool:
    """Whether a node's value (or any of its values) is a floating-point tensor."""
    value = node.meta.get("val")
    items = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(item, torch.Tensor) and item.is_floating_point() for item in items)


def is_getitem(node: Node) -> bool:
    """Whether a node picks one result of an operator that has several."""
    return node.op == "call_function" and node.target is operator.getitem


INFINITY = float("inf")
CLAMPS: dict[str, tuple[float, float] | None] = {
    "relu": (0.0, INFINITY),
    "relu6": (0.0, 6.0),
    "hardtanh": None,
    "clamp": None,
    "clamp_min": None,
    "clamp_max": None,
}
"""Operators that only cut a range, with the range where the name tells it."""


def clamp_bounds(node: Node) -> tuple[float, float] | None:
    """The range that a clamp cuts to; None for other nodes and for tensor bounds."""
    name = packet_name(node.target) if is_aten(node) else ""
    if name not in CLAMPS:
        return None
    known = CLAMPS[name]
    if known is not None:
        return known
    arguments = named_arguments(node)
    low = arguments.get("min_val", arguments.get("min"))
    high = arguments.get("max_val", arguments.get("max"))
    bounds = (-INFINITY if low is None else low, INFINITY if high is None else high)
    return (
        None if any(isinstance(b, Node) for b in bounds) else (float(bounds[0]), float(bounds[1]))
    )
