"""Decide what every operator computes in, and keep the reason.

    %conv = conv2d(%x, @w, @b)        ->  %conv = conv2d(%x, @w, @b)   !int8 fused into %relu
    %relu = relu(%conv)               ->  %relu = relu(%conv)          !int8
    %erf = erf(%relu)                 ->  %erf = erf(%relu)            !float32: tflite has no …

The user's rules (`QuantConfig`) ask, the target's constraint table answers. Operators that only
move values have no wish of their own: they follow what they move, so that no island of integers
stands between two float operators. Nothing is computed differently yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from torch.fx import GraphModule, Node

from fxquant.errors import ConfigError
from fxquant.ir.edit import is_attribute
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.fusion.group import FusedGroup, group_of
from fxquant.passes.registry import register_pass
from fxquant.quant.config import Choice, QuantConfig
from fxquant.quant.constraints import (
    Annotation,
    ConstraintTable,
    Row,
    clamp_bounds,
    is_float,
    is_getitem,
    operands_of,
    operator_name,
)
from fxquant.quant.spec import FLOAT32
from fxquant.report import StayedFloat

MOVES_FLOAT = "moves float values"


@register_pass
@dataclass(frozen=True)
class Annotate(Pass):
    """%y = conv2d(%x, @w)  ->  %y = conv2d(%x, @w) !int8

    Attributes:
        activations: precision of the nodes that no rule names, instead of the configuration's.
    """

    name: ClassVar[str] = "annotate"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    establishes: ClassVar[frozenset[str]] = frozenset({"annotated"})
    semantics: ClassVar[Semantics] = EXACT

    activations: str | None = None

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
        decisions = _Decisions(graph_module, table, config)
        for node, annotation in decisions.all().items():
            node.meta["annotation"] = annotation
        state.stayed_float = tuple(_stayed(graph_module, decisions.found))
        return PassResult(graph_module, True)


class _Decisions:
    """The decisions for one graph: operators that compute, then those that move, then chains."""

    def __init__(self, root: GraphModule, table: ConstraintTable, config: QuantConfig) -> None:
        self.root, self.table = root, table
        self.choices = config.choices(root)
        self.found: dict[Node, Annotation] = {}

    def all(self) -> dict[Node, Annotation]:
        waiting: list[Node] = []
        for node, choice in self.choices.items():
            if not (is_float(node) or operands_of(node)):
                continue
            annotation = self._alone(node, choice)
            follows = annotation.quantized and _follows(annotation.row)
            if follows:
                waiting.append(node)
            else:
                self.found[node] = annotation
        self._follow_producers()
        self._settle(waiting)
        self._fuse()
        self._group()
        return {node: self.found[node] for node in self.choices if node in self.found}

    def _alone(self, node: Node, choice: Choice) -> Annotation:
        """What rules and target say of a node, whatever stands around it."""
        if not choice.precision.quantized:
            return Annotation(choice.precision, f"rule {choice.rule}")
        row = self.table.row_of(node, self.root)
        name = f"{self.table.target} has no {choice.precision} kernel for {_title(node, self.root)}"
        if row is None:
            return Annotation(FLOAT32, name)
        activations = choice.precision.activations
        problem = row.problem(node) or _weights_problem(node, row)
        if problem is None and activations is not None and activations.dtype not in row.dtypes:
            problem = name
        if problem is not None:
            return Annotation(FLOAT32, problem)
        return Annotation(choice.precision, choice.rule, row)

    def _follow_producers(self) -> None:
        """A clamp that would end a float operator stays with it."""
        for node, annotation in self.found.items():
            if not annotation.quantized or clamp_bounds(node) is None:
                continue
            producer = operands_of(node)[0].node
            before = self.found.get(producer)
            if before is not None and not before.quantized and list(producer.users) == [node]:
                self.found[node] = Annotation(FLOAT32, f"%{producer.name} before it is float")

    def _settle(self, waiting: list[Node]) -> None:
        """Let movers follow what they move, until nothing changes."""
        changed = True
        while changed:
            changed = False
            for node in (*waiting, *reversed(waiting)):
                if node not in self.found and self._drawn(node):
                    self.found[node] = self._moving(node)
                    changed = True
        for node in waiting:
            if node not in self.found:
                self.found[node] = Annotation(FLOAT32, MOVES_FLOAT)

    def _moving(self, node: Node) -> Annotation:
        annotation = self._alone(node, self.choices[node])
        sources = (self.found.get(operand.node) for operand in operands_of(node))
        first = next((s for s in sources if s is not None and s.quantized), None)
        precision = annotation.precision if first is None else first.precision
        return replace(annotation, precision=precision)

    def _drawn(self, node: Node) -> bool:
        """Whether a mover belongs to a quantized region: by a source, or by all of its users."""
        if any(self._quantized(operand.node) for operand in operands_of(node)):
            return True
        users = list(_readers(node))
        return not is_getitem(node) and bool(users) and all(map(self._quantized, users))

    def _quantized(self, node: Node) -> bool:
        annotation = self.found.get(node)
        return annotation is not None and annotation.quantized

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
        if not annotation.quantized and annotation.reason != MOVES_FLOAT:
            source = source_text(node) or ""
            yield StayedFloat(node.name, operator_name(node, root), annotation.reason, source)


def _follows(row: Row | None) -> bool:
    return row is not None and (row.output.moves or row.output.kind == "plain")


def _readers(node: Node) -> Iterable[Node]:
    """The users of a value; for a value with several parts, the users of the parts."""
    for user in node.users:
        if is_getitem(user):
            yield from _readers(user)
        else:
            yield user


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
