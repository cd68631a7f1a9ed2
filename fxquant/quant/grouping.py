"""Sets of values that must share scale and zero point: a union-find with the strictest spec."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch.fx import Node

from fxquant.quant.spec import QuantSpec

GRID = "grid"
"""Where a pass notes a name; values with the same name share scale and zero point."""


@dataclass
class Group:
    """Values with one scale and zero point.

    Attributes:
        spec: of all of them.
        values: the nodes, in order.
        constant: whether all of them are constants.
        path: where their FakeQuantize stands, once it is made.
    """

    spec: QuantSpec
    values: list[Node] = field(default_factory=list)
    constant: bool = False
    path: str | None = None

    def make_symmetric(self) -> None:
        """Demand a zero point in the middle; prescribed parameters stay."""
        if self.spec.fixed is None:
            self.spec = replace(self.spec, symmetric=True)


class Groups:
    """The groups of a graph's values."""

    def __init__(self) -> None:
        self._of: dict[Node, Group] = {}

    def __contains__(self, node: Node) -> bool:
        return node in self._of

    def __getitem__(self, node: Node) -> Group:
        return self._of[node]

    def add(self, node: Node, spec: QuantSpec, *, constant: bool = False) -> Group:
        """A new group of one value."""
        group = Group(spec, [node], constant)
        self._of[node] = group
        return group

    def put(self, node: Node, group: Group) -> None:
        """Into a group that is at hand."""
        group.values.append(node)
        self._of[node] = group

    def join(self, node: Node, other: Node) -> None:
        """One group for two values; a value that has none yet goes into the other's."""
        kept = self._of[other]
        absorbed = self._of.get(node) or Group(kept.spec, [node], kept.constant)
        if absorbed is kept:
            return
        symmetric = kept.spec.symmetric or absorbed.spec.symmetric
        spec = absorbed.spec if absorbed.spec.fixed is not None else kept.spec
        kept.spec = spec if spec.fixed is not None else replace(spec, symmetric=symmetric)
        kept.constant = kept.constant and absorbed.constant
        kept.values += absorbed.values
        for value in absorbed.values:
            self._of[value] = kept
