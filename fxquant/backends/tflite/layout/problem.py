"""A graph as a labelling problem: operators with forms, and the values between them.

Transposes are no operators here. What they make is the same value seen another way, so a value
costs nothing where its writer and a reader agree, through whatever transposes, on how it is stored:

    %a = conv_2d(%x)                 value %a, written as Layout((0,1,2,3))
    %b = transpose(%a) {perm=(0,3,1,2)}
    %c = relu(%b)                    reads %a; in the form (0,2,3,1) it reads it as it is

Which forms are worth trying is found in `families`, and the best of them in `moves`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch.fx import GraphModule, Node

from .borders import Borders, output_names, outputs_of
from .layouts import Layout, Order, Shape, below, beyond, cost, steps
from .operators import Operator, Slot, operator_at, pinned
from .typed import shape_of, size_of


@dataclass(frozen=True, eq=False)
class End:
    """Where a value meets an operator: its slot, and the view that it has of the value."""

    operator: Operator
    slot: Slot
    view: Order

    def layout(self, form: Layout) -> Layout:
        """How the value is stored if the operator takes that form."""
        return below(self.operator.layout(self.slot, form), self.view)

    def form(self, layout: Layout) -> Layout | None:
        """The operator's form if the value is stored so."""
        return self.operator.form_with(self.slot, beyond(layout, self.view))


@dataclass(eq=False)
class Value:
    """One value: what writes it, and what reads it."""

    node: Node
    shape: Shape
    size: int
    writer: End
    readers: list[End] = field(default_factory=list)
    _costs: dict[tuple[Layout, Layout], int] = field(default_factory=dict)

    def cost(self, source: Layout, target: Layout) -> int:
        """What it costs to bring the value from one layout into another."""
        if source == target:
            return 0
        key = (source, target)
        known = self._costs.get(key)
        if known is None:
            known = self._costs[key] = cost(self.size, steps(self.shape, source, target))
        return known

    def total(self) -> int:
        """What the layouts that are wanted besides the written one cost now."""
        source = self.writer.layout(self.writer.operator.form)
        wanted = {reader.layout(reader.operator.form) for reader in self.readers}
        return sum(self.cost(source, target) for target in wanted)


class Problem:
    """The operators and values of a graph.

    Attributes:
        operators: in the order of the graph.
        values: by the node that makes them.
        views: for each node, the value that it shows, and how; constants too.
        constants: the nodes that are constants.
    """

    def __init__(self, graph_module: GraphModule, borders: Borders) -> None:
        self.operators: list[Operator] = []
        self.values: dict[Node, Value] = {}
        self.views: dict[Node, tuple[Node, Order]] = {}
        self.constants: set[Node] = set()
        self.ends: dict[Operator, list[tuple[Value, End]]] = {}
        self._border = _border_layouts(graph_module, borders)
        for node in graph_module.graph.nodes:
            self._visit(node)

    def _visit(self, node: Node) -> None:
        name = getattr(node.target, "__name__", "")
        if node.op == "get_attr" or (name == "constant" and _reads_attribute(node)):
            self.constants.add(node)
            self._show(node)
        elif node.op == "placeholder":
            self._add(Operator(node, [pinned("result", node, self._border[node])], None))
        elif node.op == "output":
            slots = [pinned("result", item, self._border[item]) for item in outputs_of(node)]
            self._add(Operator(node, slots, None))
        elif name == "transpose":
            self._view(node)
        elif name in ("bind", "unbind"):
            source = node.all_input_nodes[0]
            layout = self._border.get(source) or self._border.get(node)
            slots = [pinned("x", source, layout), pinned("result", node, layout)]
            self._add(Operator(node, slots, None))
        elif name != "getitem":
            self._add(operator_at(node))

    def _show(self, node: Node) -> None:
        self.views[node] = (node, tuple(range(len(shape_of(node)))))

    def _view(self, node: Node) -> None:
        source, perm = node.all_input_nodes[0], _permutation(node)
        root, view = self.views[source]
        self.views[node] = (root, tuple(view[axis] for axis in perm))

    def _add(self, operator: Operator) -> None:
        self.operators.append(operator)
        ends = self.ends[operator] = []
        for slot in operator.slots:
            if slot.node in self.views:
                root, view = self.views[slot.node]
                if root in self.constants:
                    continue
                end = End(operator, slot, view)
                self.values[root].readers.append(end)
            else:
                self._show(slot.node)
                root, view = self.views[slot.node]
                end = End(operator, slot, view)
                self.values[root] = Value(root, slot.shape, size_of(root), end)
            ends.append((self.values[root], end))

    def total(self) -> int:
        """What all values cost in the forms chosen so far."""
        return sum(value.total() for value in self.values.values())

    def constant_slots(self, operator: Operator) -> Iterator[Slot]:
        """The operands that are constants."""
        for slot in operator.slots:
            if self.views[slot.node][0] in self.constants:
                yield slot


def _reads_attribute(node: Node) -> bool:
    source = node.args[0] if node.args else node.kwargs.get("data")
    return isinstance(source, Node) and source.op == "get_attr"


def _permutation(node: Node) -> Order:
    perm = node.args[1] if len(node.args) > 1 else node.kwargs["perm"]
    assert isinstance(perm, list | tuple)
    return tuple(int(axis) % len(perm) for axis in perm)


def _border_layouts(graph_module: GraphModule, borders: Borders) -> dict[Node, Layout]:
    """The layouts of inputs, and of the values that the graph returns."""
    found: dict[Node, Layout] = {}
    names: set[str] = set()
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            names.add(str(node.target))
            found[node] = borders.layout(str(node.target), node)
        elif node.op == "output":
            results = outputs_of(node)
            for name, item in zip(output_names(graph_module, len(results)), results, strict=True):
                names.add(name)
                found.setdefault(item, borders.layout(name, item))
    borders.check(names)
    return found
