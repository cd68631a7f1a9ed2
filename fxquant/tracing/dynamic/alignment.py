"""Graphs of one model at several sizes, node by node: where do they differ?

reshape(%x, [2, 64])
reshape(%x, [3, 64])     ->  [Varying((2, 3), batch), 64]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from fxquant.tracing.dynamic.formula import Formula, formula_of


@dataclass(frozen=True)
class Varying:
    """A number, or the data of a constant, that differs; with its formula if it has one."""

    values: tuple[Any, ...]
    formula: Formula | None = None


class Misaligned(Exception):
    """The graphs do different things from this node of the first one on."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.node = node


class Aligned:
    """Graphs that do the same.

    Args:
        graphs: the graphs, one for each of `sizes`.
        sizes: the sizes of all named dimensions, for which each graph was made.
    """

    def __init__(self, graphs: Sequence[GraphModule], sizes: Sequence[Mapping[str, int]]) -> None:
        self.graphs, self.sizes = graphs, sizes
        self.place: dict[Node, int] = {}
        for graph in graphs:
            self.place.update({node: n for n, node in enumerate(graph.graph.nodes)})

    def rows(self) -> Iterator[tuple[Node, ...]]:
        """Each node with its counterparts.

        Raises:
            Misaligned: from here on the graphs do different things.
        """
        columns = [list(graph.graph.nodes) for graph in self.graphs]
        for nodes in zip(*columns, strict=False):
            if len({(node.op, _identity(node)) for node in nodes}) > 1:
                raise Misaligned(nodes[0])
            yield nodes
        if len({len(column) for column in columns}) > 1:
            raise Misaligned(columns[0][-1])

    def merge(self, nodes: Sequence[Node]) -> tuple[Any, Any]:
        """The arguments that the nodes have in common, `Varying` where they differ.

        Raises:
            Misaligned: they read different values.
        """
        args = self._merged(tuple(node.args for node in nodes), nodes[0])
        return args, self._merged(tuple(node.kwargs for node in nodes), nodes[0])

    def number(self, values: tuple[int, ...]) -> int | Varying:
        """A number that may differ."""
        same = all(value == values[0] for value in values)
        return values[0] if same else Varying(values, formula_of(values, self.sizes))

    def _merged(self, values: tuple[Any, ...], node: Node) -> Any:
        first = values[0]
        if isinstance(first, Node):
            if len({self.place.get(value) for value in values}) > 1:
                raise Misaligned(node)
            return first
        if len({type(value) for value in values}) > 1:
            raise Misaligned(node)
        if isinstance(first, Mapping):
            return {key: self._merged(tuple(v[key] for v in values), node) for key in first}
        if isinstance(first, slice):
            parts = [(v.start, v.stop, v.step) for v in values]
            return slice(*(self._merged(each, node) for each in zip(*parts, strict=True)))
        if isinstance(first, list | tuple):
            if len({len(value) for value in values}) > 1:
                raise Misaligned(node)
            items = [self._merged(each, node) for each in zip(*values, strict=True)]
            return items if isinstance(first, list) else tuple(items)
        if isinstance(first, int) and not isinstance(first, bool):
            return self.number(values)
        return first if all(value == first for value in values) else Varying(values)


def _identity(node: Node) -> object:
    """What tells apart two nodes that do different things; constants are told apart by data."""
    return None if node.op in {"get_attr", "output"} else node.target


def varying_in(value: Any) -> list[Varying]:
    """Everything that differs inside arguments."""
    if isinstance(value, Varying):
        return [value]
    if isinstance(value, slice):
        return varying_in((value.start, value.stop, value.step))
    if isinstance(value, Mapping):
        return varying_in(tuple(value.values()))
    if isinstance(value, list | tuple):
        return [found for item in value for found in varying_in(item)]
    return []


def one_slice(data: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[int]] | None:
    """Constants that only repeat along the dimensions in which they differ: one slice of them.

    Returns:
        The slice, of size 1 in those dimensions, and the dimensions; None if they do not repeat.
    """
    ranks = {tensor.dim() for tensor in data}
    if len(ranks) > 1 or len({tensor.dtype for tensor in data}) > 1:
        return None
    axes = [axis for axis in range(ranks.pop()) if len({tensor.shape[axis] for tensor in data}) > 1]
    if any(tensor.numel() == 0 for tensor in data) or not axes:
        return None
    found = data[0]
    for axis in axes:
        found = found.narrow(axis, 0, 1)
    same = all(torch.equal(found.expand(tensor.shape), tensor) for tensor in data)
    return (found.contiguous(), axes) if same else None
