"""Operators whose precision is free, and how borders between precisions choose for them.

    asked:   conv !int8, relu !int8, erf !float32 (no kernel), mul !int8, sqrt !float32 (no kernel)
    placed:  … mul !float32: between float operators, conversions would move more bytes

Operators that only move values (`reshape`, `cat`, `max_pool2d`) and clamps compute the same in
every precision, so they take any that stands around them. Others that the target lists as `free`
(`add`, `sigmoid`) take what was asked or something finer. Whatever the user chose for a node by its
name is not free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from torch.fx import GraphModule, Node

from fxquant.passes.borders import FLOAT, dtype_of, place_borders
from fxquant.passes.fusion.group import group_of
from fxquant.quant.config import Choice
from fxquant.quant.constraints import (
    Annotation,
    ConstraintTable,
    clamp_bounds,
    operands_of,
    operator_name,
)
from fxquant.quant.spec import FLOAT32, Precision

MOVES_FLOAT = "moves float values"
BETWEEN_FLOATS = "between float operators, conversions would move more bytes"

Judge = Callable[[Node, Choice], Annotation]


class FreePrecision:
    """The choice for the free operators of one graph.

    Args:
        root: the graph.
        table: the target's demands.
        choices: what the user asked of each node.
        judge: what rules and target say of a node and a choice, whatever stands around it.
    """

    def __init__(
        self,
        root: GraphModule,
        table: ConstraintTable,
        choices: Mapping[Node, Choice],
        judge: Judge,
    ) -> None:
        self.root, self.table, self.choices, self.judge = root, table, choices, judge

    def placed(self, asked: Mapping[Node, Annotation]) -> dict[Node, Annotation]:
        """The decisions with every free operator where the borders cost least."""
        used = {dtype_of(a.precision): a.precision for a in asked.values()}
        options = {node: self._options(node, a, used) for node, a in asked.items()}
        pairs = list(self._together(asked))
        chosen = place_borders({node: list(each) for node, each in options.items()}, pairs)
        clamped = {second: first for first, second in pairs if clamp_bounds(second) is not None}
        found: dict[Node, Annotation] = {}
        for node, dtype in chosen.items():
            annotation = options[node][dtype]
            before = clamped.get(node)
            if annotation.reason == BETWEEN_FLOATS and before is not None:
                reason = f"%{before.name} before it is float"
                annotation = replace(annotation, reason=reason)
            found[node] = annotation
        return found

    def _options(
        self, node: Node, asked: Annotation, used: Mapping[str, Precision]
    ) -> dict[str, Annotation]:
        """What a node can compute in by dtype, what was asked first."""
        own = dtype_of(asked.precision)
        options = {own: asked}
        for dtype, precision in used.items():
            if dtype not in (own, FLOAT) and self._may_be(node, asked, precision):
                annotation = self.judge(node, Choice(precision, "as its neighbors"))
                if annotation.precision == precision:
                    options[dtype] = annotation
        if own != FLOAT and self._may_be(node, asked, FLOAT32):
            reason = MOVES_FLOAT if self._moves(node) else BETWEEN_FLOATS
            options[FLOAT] = Annotation(FLOAT32, reason)
        return options

    def _may_be(self, node: Node, asked: Annotation, other: Precision) -> bool:
        """Whether a node may compute in something that was not asked of it."""
        choice = self.choices[node]
        refused = asked.precision != choice.precision
        if refused or choice.names_node or self._is_kept_float(node):
            return False
        if self._moves(node) or clamp_bounds(node) is not None:
            return True
        is_free = operator_name(node, self.root) in self.table.free and choice.asked is None
        return is_free and asked.quantized and dtype_of(other) in (FLOAT, "int16")

    def _is_kept_float(self, node: Node) -> bool:
        choice = self.choices[node]
        return choice.asked is not None and not choice.precision.quantized

    def _moves(self, node: Node) -> bool:
        row = self.table.row_of(node, self.root)
        return row is not None and (row.output.moves or row.output.kind == "plain")

    def _together(self, asked: Mapping[Node, Annotation]) -> Iterator[tuple[Node, Node]]:
        """Operators and the clamps that end them, and those that the target computes as one."""
        names = {node.name: node for node in asked}
        for node in asked:
            if clamp_bounds(node) is not None and operands_of(node):
                producer = operands_of(node)[0].node
                if producer in asked and list(producer.users) == [node]:
                    yield producer, node
            group = group_of(node)
            if group is not None and group.name in self.table.groups and group.end in names:
                yield from ((node, user) for user in node.users if user is names[group.end])
