"""Decide what every operator computes in, and keep the reason.

    %conv = conv2d(%x, @w, @b)        ->  %conv = conv2d(%x, @w, @b)   !int8 fused into %relu
    %relu = relu(%conv)               ->  %relu = relu(%conv)          !int8
    %erf = erf(%relu)                 ->  %erf = erf(%relu)            !float32: tflite has no …

The user's rules (`QuantConfig`) ask, the target's constraint table answers; what stands outside of
the user's stubs stays float (`functional.stubs`). Operators that could
compute in either stand where the fewest bytes are converted (`free_precision`, `borders`), so that
no island of integers is left between two float operators. Where a target lacks the precision asked
for, the next wider one is tried (`Precision.otherwise`) and the reason kept. Nothing is computed
differently yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch.fx import GraphModule, Node

from fxquant.errors import ConfigError
from fxquant.ir.edit import OUTSIDE, is_attribute
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.free_precision import MOVES_FLOAT, FreePrecision
from fxquant.passes.fusion.group import FusedGroup, group_of
from fxquant.passes.recurrent.whole import annotated
from fxquant.passes.registry import register_pass
from fxquant.passes.unmet_rules import check_rules_are_met
from fxquant.quant.config import Choice, QuantConfig
from fxquant.quant.constraints import (
    Annotation,
    ConstraintTable,
    Row,
    is_float,
    leader_of,
    operands_of,
    operator_name,
)
from fxquant.quant.spec import FLOAT32, Precision, precision
from fxquant.report import StayedFloat

NOT_ASKED = "is computed in integers only if they are asked for: float is faster and closer"
NO_WEIGHTS = "has no weights to store narrow"


@register_pass
@dataclass(frozen=True)
class Annotate(Pass):
    """%y = conv2d(%x, @w)  ->  %y = conv2d(%x, @w) !int8

    Attributes:
        activations: precision of the nodes that no rule names, instead of the configuration's.
        placing: `cut` puts operators that could compute in several precisions where the fewest
            bytes are converted; `asked` leaves each in its own.
    """

    name: ClassVar[str] = "annotate"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    establishes: ClassVar[frozenset[str]] = frozenset({"annotated"})
    semantics: ClassVar[Semantics] = EXACT

    activations: str | None = None
    placing: Literal["cut", "asked"] = "cut"

    def run(self, graph_module: GraphModule) -> PassResult:
        state = state_of(graph_module)
        table = state.constraints
        if not isinstance(table, ConstraintTable):
            raise ConfigError(
                "the graph has no target, so nothing says what can be quantized",
                fix='name the backend, e.g. prepare(…, backend="tflite")',
            )
        config = state.config if isinstance(state.config, QuantConfig) else QuantConfig()
        if self.activations is not None:
            config = replace(config, precision=self.activations)
        state.config = config
        decisions = _Decisions(graph_module, table, config, self.placing == "cut")
        for node, annotation in decisions.all().items():
            node.meta["annotation"] = annotation
        state.stayed_float = tuple(_stayed(graph_module, decisions.found))
        replaced = list(_replaced(graph_module, decisions.found))
        if replaced:
            state.notes[self.name] = replaced
        return PassResult(graph_module, True)


class _Decisions:
    """The decisions for one graph: operators alone, then borders, then chains."""

    def __init__(
        self, root: GraphModule, table: ConstraintTable, config: QuantConfig, cut: bool
    ) -> None:
        self.root, self.table, self.config, self.cut = root, table, config, cut
        self.choices, self.misfits = config.judged(root)
        for node in self.choices:
            leader = leader_of(node)
            if leader is not None:  # the two are one operator
                self.choices[node] = self.choices[leader]
        self.found: dict[Node, Annotation] = {}

    def all(self) -> dict[Node, Annotation]:
        asked = {
            node: self._alone(node, choice)
            for node, choice in self.choices.items()
            if is_float(node) or operands_of(node)
        }
        check_rules_are_met(self.root, self.choices, asked, self.misfits)
        free = FreePrecision(self.root, self.table, self.choices, self._alone)
        self.found = free.placed(asked) if self.cut else asked
        self._fuse()
        self._group()
        self.found.update(annotated(self.root, self.table, self.found))
        return self.found

    def _alone(self, node: Node, choice: Choice) -> Annotation:
        """What rules and target say of a node, whatever stands around it."""
        leader = leader_of(node)
        if leader is not None:
            before = self._alone(leader, choice)
            row = self.table.row_of(node, self.root) if before.quantized else None
            return replace(before, row=row)
        wanted, reason = choice.precision, ""
        row = self.table.row_of(node, self.root)
        outside = node.meta.get(OUTSIDE)
        if outside is not None and wanted.form != "float":
            return Annotation(FLOAT32, str(outside))
        while wanted.form != "float":
            problem = self._problem(node, wanted, row, self.config.wants_integers(choice))
            if problem is None and wanted is choice.precision:
                return Annotation(wanted, choice.rule, row)
            if problem is None:
                return Annotation(wanted, reason, row, asked=choice.precision)
            reason = reason or problem
            wanted = precision(wanted.otherwise)
        if choice.precision.form == "float":
            return Annotation(choice.precision, f"rule {choice.rule}")
        return Annotation(FLOAT32, reason)

    def _problem(
        self, node: Node, wanted: Precision, row: Row | None, integers: bool
    ) -> str | None:
        """Why a node cannot be of a precision; None if it can."""
        if wanted.form == "rounded":
            return None
        if wanted.form != "static":
            return _narrow_problem(node, wanted, row)
        name = f"{self.table.target} has no {wanted} kernel for {_title(node, self.root)}"
        if row is None:
            return name
        problem = row.problem(node) or _weights_problem(node, row)
        assert wanted.activations is not None
        if problem is None and wanted.activations.dtype not in row.dtypes:
            return name
        if problem is None and row.asked_only and not integers:
            return f"{_title(node, self.root)} {NOT_ASKED}"
        if problem is None and row.asked_only and row.in_steps:
            return name
        if problem is None and row.weights is not None and _has_weights(node, row):
            return row.weights.problem(wanted)
        return problem

    def _fuse(self) -> None:
        for node, annotation in self.found.items():
            if annotation.row is None or not annotation.row.fuses or len(node.users) != 1:
                continue
            user = next(iter(node.users))
            after = self.found.get(user)
            alike = after is not None and after.precision == annotation.precision
            if alike and self.table.fuses_into(node, user):
                self.found[node] = replace(annotation, fused_into=user.name)

    def _group(self) -> None:
        """Leave the inner values of a group unobserved where the target computes it as one."""
        ends = {node.name: node for node in self.found}
        groups: dict[FusedGroup, list[Node]] = {}
        for node in self.found:
            group = group_of(node)
            if group is not None and group.name in self.table.groups and group.end in ends:
                groups.setdefault(group, []).append(node)
        for group, inner in groups.items():
            members = {ends[group.end], *inner}
            alone = all(members.issuperset(node.users) for node in inner)
            if alone and len({self.found[member].precision for member in members}) == 1:
                for node in inner:
                    self.found[node] = replace(self.found[node], fused_into=group.end)


def _stayed(root: GraphModule, found: dict[Node, Annotation]) -> Iterator[StayedFloat]:
    """What computes in float and could have been asked not to, for the report."""
    for node, annotation in found.items():
        own = annotation.reason not in {MOVES_FLOAT, NO_WEIGHTS}
        if annotation.precision.form == "float" and own:
            source = source_text(node) or ""
            yield StayedFloat(node.name, operator_name(node, root), annotation.reason, source)


def _replaced(root: GraphModule, found: dict[Node, Annotation]) -> Iterator[str]:
    """What got another precision than the one asked for, one line for all of a kind."""
    kinds = Counter(
        (operator_name(node, root), annotation.asked.name, annotation.precision.name, reason)
        for node, annotation in found.items()
        for reason in [annotation.reason]
        if annotation.asked is not None
    )
    for (operator, asked, got, reason), count in kinds.items():
        yield f"{count} {operator}: {got} instead of {asked}, {reason}"


def _title(node: Node, root: GraphModule) -> str:
    prefix = "aten." if node.op == "call_function" else ""
    return prefix + operator_name(node, root)


def _weights_problem(node: Node, row: Row) -> str | None:
    """Weights per channel and biases must be constants."""
    for name, operand in operands_of(node):
        role = row.operands.get(name)
        constant = role is not None and (role.axis is not None or role.kind == "int32")
        if constant and not is_attribute(operand):
            return f"its {name} is not a constant"
    return None


def _has_weights(node: Node, row: Row) -> bool:
    """Whether an operator has constant weights."""
    kinds = ((row.operands.get(name), operand) for name, operand in operands_of(node))
    return any(r is not None and r.kind == "symmetric" and is_attribute(o) for r, o in kinds)


def _narrow_problem(node: Node, wanted: Precision, row: Row | None) -> str | None:
    """Why the weights of a float operator cannot be stored narrow; None if they can."""
    if row is None or row.weights is None or not _has_weights(node, row):
        return NO_WEIGHTS
    return row.weights.problem(wanted)
