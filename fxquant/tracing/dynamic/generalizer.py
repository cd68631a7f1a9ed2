"""Two graphs of one stage as one that holds for every size of the named dimensions.

A stage is made at two sizes. Where the graphs differ, a dialect says how an operator is written
without the number (`write`); what it cannot write is reported with the user's lines, all at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from fxquant.errors import Problem, UnsupportedOp
from fxquant.ir.edit import copy_graph_module, get_attribute, inherit
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.tracing.dynamic.alignment import Aligned, Misaligned, Varying, one_slice, varying_in
from fxquant.tracing.dynamic.dimensions import Dimension, trials

LEAVE_OUT = "leave the dimension out of dynamic_shapes"


def dimensions_of(graph_module: GraphModule) -> tuple[Dimension, ...]:
    """The named dimensions of a graph's inputs."""
    found: tuple[Dimension, ...] = getattr(state_of(graph_module).signature, "dimensions", ())
    return found


def at_two_sizes(
    graph_module: GraphModule,
    resize: Callable[[GraphModule, Mapping[str, int]], object],
    write: Callable[[GraphModule], GraphModule],
) -> tuple[list[GraphModule], Sequence[Mapping[str, int]]]:
    """What `write` makes of a graph at two sizes of its named dimensions, and these sizes.

    Args:
        graph_module: left as it is.
        resize: gives a graph the types of other sizes.
        write: makes the next stage of a graph, which it may change.
    """
    sizes, graphs = trials(dimensions_of(graph_module)), []
    for each in sizes:
        copy = copy_graph_module(graph_module)
        resize(copy, each)
        graphs.append(write(copy))
    return graphs, sizes


class Unwritable(Exception):
    """An operator that cannot be written for every size; the message says why."""


class Generalizer(ABC):
    """Writes the first of several graphs for every size.

    Attributes:
        graph: the graph that is changed.
        named: an input and its dimension for each name.
    """

    def __init__(self, graphs: Sequence[GraphModule], sizes: Sequence[Mapping[str, int]]) -> None:
        self.graphs, self.sizes = graphs, sizes
        self.aligned = Aligned(graphs, sizes)
        self.root: GraphModule = graphs[0]
        self.graph: Graph = self.root.graph
        self.counterparts: dict[Node, tuple[Node, ...]] = {}
        self.named = named_inputs(self.root)
        self.problems: list[Problem] = []
        self.added: list[Node] = []

    def run(self) -> GraphModule:
        """The graph that holds for every size."""
        try:
            for nodes in list(self.aligned.rows()):
                self.counterparts[nodes[0]] = nodes
                self._visit(nodes)
        except Misaligned as place:
            self._note(place.node, "what is computed depends on the size of a named dimension")
        if self.problems:
            raise UnsupportedOp(
                f"not for every size of {', '.join(self.named)}: {len(self.problems)} of the "
                "operations",
                problems=self.problems,
            )
        self.root.recompile()
        return self.root

    def _visit(self, nodes: tuple[Node, ...]) -> None:
        node = nodes[0]
        try:
            if node.op == "get_attr":
                self._constant(nodes)
                return
            args, kwargs = self.aligned.merge(nodes)
            if not varying_in((args, kwargs)):
                return
            new = self.write(node, args, kwargs)
        except Unwritable as reason:
            self._note(node, str(reason))
            return
        if new is not None and new is not node:
            self.replace(node, new)

    def _constant(self, nodes: tuple[Node, ...]) -> None:
        """A constant that only repeats where it differs is kept once and expanded."""
        node = nodes[0]
        data = [get_attribute(g, str(n.target)) for g, n in zip(self.graphs, nodes, strict=True)]
        if not all(isinstance(each, torch.Tensor) for each in data) or _alike(data):
            return
        found = one_slice(data)
        if found is None:
            raise Unwritable("a constant depends on the size of a named dimension")
        part, axes = found
        owner, _, name = str(node.target).rpartition(".")
        setattr(get_attribute(self.root, owner) if owner else self.root, name, part)
        new, after = node, node.next
        for axis in axes:
            values = tuple(each.shape[axis] for each in data)
            new = self.expanded(new, axis, self.aligned.number(values), after)
        self.replace(node, new, erase=False)

    @abstractmethod
    def write(self, node: Node, args: Any, kwargs: Any) -> Node | None:
        """A node that does the same at every size; None if this one was changed to do so.

        Raises:
            Unwritable: there is no such form.
        """

    @abstractmethod
    def expanded(self, x: Node, axis: int, number: int | Varying, before: Node) -> Node:
        """A value of size 1 in one dimension, repeated to a size that varies.

        Raises:
            Unwritable: there is no such form.
        """

    # -- for rules -----------------------------------------------------------------------------

    def shapes(self, node: Node) -> list[tuple[int, ...]]:
        """The shape of a value of the first graph at each size."""
        return [tuple(each.meta["val"].shape) for each in self.counterparts[node]]

    def extent(self, node: Node, axis: int) -> int | Varying:
        """The size of one dimension of a value."""
        return self.aligned.number(tuple(shape[axis] for shape in self.shapes(node)))

    def call(self, target: Any, *args: Any, before: Node, **kwargs: Any) -> Node:
        """A new operator in the place of one."""
        with self.graph.inserting_before(before):
            node = self.graph.create_node("call_function", target, args, kwargs)
        self.added.append(node)
        return inherit(node, before, value=False)

    def replace(self, old: Node, new: Node, *, erase: bool = True) -> None:
        """Let the users of one value read another; it keeps the old one's place among graphs."""
        self.aligned.place[new] = self.aligned.place[old]
        self.counterparts[new] = self.counterparts[old]
        inherit(new, old, value=False)
        added = set(self.added)
        old.replace_all_uses_with(new, delete_user_cb=lambda user: user not in added)
        self.added.clear()
        if erase:
            name = old.name
            self.graph.erase_node(old)
            new._rename(name)

    def _note(self, node: Node, what: str) -> None:
        user = next(iter(node.users), node) if node.op == "get_attr" else node
        text = format_node(user, self.root)
        self.problems.append(Problem(what, text, source_text(user), LEAVE_OUT))


def _alike(data: Sequence[torch.Tensor]) -> bool:
    first = data[0]
    return all(
        each is first or (each.shape == first.shape and torch.equal(each, first)) for each in data
    )


def named_inputs(root: GraphModule) -> dict[str, tuple[Node, int]]:
    """An input and its dimension for each name."""
    found: dict[str, tuple[Node, int]] = {}
    signature = state_of(root).signature
    for node, spec in zip(root.graph.find_nodes(op="placeholder"), signature.inputs, strict=True):
        for axis, (name, _) in enumerate(spec.dimensions):
            if name is not None:
                found.setdefault(name, (node, axis))
    return found


def described(value: Any) -> str:
    """What varies inside arguments, as text: `it has batch*4`."""
    texts = [
        str(each.formula) if each.formula is not None else " or ".join(map(str, each.values))
        for each in varying_in(value)
    ]
    return f"it has {', '.join(dict.fromkeys(texts))}"
