"""Bring a graph into the layouts that were chosen: the fewest transposes, attributes rewritten.

Each value is written in one layout. Where readers want another, one conversion stands right behind
the value and serves them all; of the graph's own transposes only those remain that do just that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.fx import GraphModule, Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.edit import inherit, prune_attributes

from .layouts import Layout, Order, Shape, Step, below, natural, steps, stored_shape
from .operators import Operator, Slot, arguments_of, set_argument
from .problem import Problem, Value
from .stored_constants import StoredConstants
from .typed import relaid, set_type, type_of

IO_PERMUTATION = "io_permutation"


def rewrite(graph_module: GraphModule, problem: Problem) -> bool:
    """Rewrite the graph in place; whether anything changed."""
    return _Rewriter(graph_module, problem).run()


class _Rewriter:
    def __init__(self, graph_module: GraphModule, problem: Problem) -> None:
        self.graph_module = graph_module
        self.graph = graph_module.graph
        self.problem = problem
        self.constants = StoredConstants(graph_module)
        self.converted: dict[tuple[Node, Layout], Node] = {}
        self.reshapes: set[Node] = set()
        self.changed = False
        self.kinds = {value: type_of(value.node) for value in problem.values.values()}

    def run(self) -> bool:
        for operator in self.problem.operators:
            if operator.node.op == "placeholder":
                self._placeholder(operator)
            elif operator.node.op == "output":
                self._output(operator)
            else:
                self._operands(operator)
                self._attributes(operator)
                self._results(operator)
        self._sweep()
        return self.changed

    # -- the graph's borders -------------------------------------------------------------------

    def _placeholder(self, operator: Operator) -> None:
        (slot,) = operator.slots
        permutation = _permutation(operator, slot)
        if permutation is not None:
            self._retype(slot.node, operator.layout(slot, operator.form))
            slot.node.meta[IO_PERMUTATION] = permutation

    def _output(self, operator: Operator) -> None:
        reads = iter(operator.slots)
        args = _mapped(operator.node.args[0], lambda: self._read(operator, next(reads)))
        if args != operator.node.args[0]:
            operator.node.args = (args,)
            self.changed = True
        permutations = [_permutation(operator, slot) for slot in operator.slots]
        if any(permutation is not None for permutation in permutations):
            operator.node.meta[IO_PERMUTATION] = permutations
            operator.node.meta.pop("val", None)

    # -- operators -----------------------------------------------------------------------------

    def _operands(self, operator: Operator) -> None:
        arguments = arguments_of(operator.node)
        names = dict.fromkeys(slot.name for slot in operator.slots if slot.name != "result")
        for name in names:
            reads = iter([slot for slot in operator.slots if slot.name == name])
            new = _mapped(arguments[name], lambda: self._read(operator, next(reads)))  # noqa: B023
            if new != arguments[name]:
                set_argument(operator.node, name, new)
                self.changed = True

    def _attributes(self, operator: Operator) -> None:
        if operator.axes is None or operator.rule is None:
            return
        if operator.form == natural(operator.axes.count):
            return
        arguments, orders = arguments_of(operator.node), operator.orders(operator.form)
        for name, change in operator.rule.changes.items():
            new = change(arguments[name], orders)
            if new != arguments[name]:
                set_argument(operator.node, name, new)
                self.changed = True

    def _results(self, operator: Operator) -> None:
        results = [slot for slot in operator.slots if slot.name == "result"]
        for slot in results:
            self._retype(slot.node, operator.layout(slot, operator.form))
        if results and results[0].node is not operator.node:
            layout = operator.layout(results[0], operator.form)
            kinds = operator.node.meta.get("type")
            if kinds is not None and layout != natural(len(layout.order)):
                set_type(operator.node, [relaid(kind, layout) for kind in kinds])

    def _retype(self, node: Node, layout: Layout) -> None:
        if layout.order != tuple(range(len(layout.order))):
            set_type(node, relaid(type_of(node), layout))
            self.changed = True

    # -- operands ------------------------------------------------------------------------------

    def _read(self, operator: Operator, slot: Slot) -> Node:
        """The node from which an operator reads an operand."""
        layout = operator.layout(slot, operator.form)
        aligned = _aligned(operator, slot, layout)
        root, view = self.problem.views[slot.node]
        target = below(layout, view)
        if root in self.problem.constants:
            return self.constants.node(root, target, aligned)
        node = self._converted(self.problem.values[root], target, slot.node, view)
        while node in self.reshapes and operator.node.target is tfl.reshape:
            node = node.all_input_nodes[0]
        if aligned == stored_shape(slot.shape, layout):
            return node
        return self._emit(Step("reshape", aligned), node, operator.node)

    def _converted(self, value: Value, target: Layout, seen: Node, view: Order) -> Node:
        """The value in a layout; `seen` is a node of the old graph that shows it by `view`."""
        source = value.writer.layout(value.writer.operator.form)
        moves = steps(value.shape, source, target)
        if not moves:
            return value.node
        key = (value.node, target)
        if key not in self.converted:
            if moves == (Step("transpose", view),) and value.node in seen.all_input_nodes:
                set_type(seen, relaid(self.kinds[value], target))
                self.converted[key] = seen
            else:
                self.converted[key] = self._convert(value, moves, target)
        return self.converted[key]

    def _convert(self, value: Value, moves: Iterable[Step], target: Layout) -> Node:
        node, place = value.node, value.node.next
        while place.op == "placeholder":
            place = place.next
        for step in moves:
            node = self._emit(step, node, place)
        set_type(node, relaid(self.kinds[value], target))
        return node

    def _emit(self, step: Step, source: Node, place: Node) -> Node:
        with self.graph.inserting_before(place):
            if step.kind == "transpose":
                node = self.graph.call_function(tfl.transpose, (source,), {"perm": step.values})
            else:
                node = self.graph.call_function(tfl.reshape, (source, step.values))
                self.reshapes.add(node)
        kind = type_of(source)
        if step.kind == "transpose":
            set_type(node, relaid(kind, Layout(step.values)))
        else:
            set_type(node, type(kind)(step.values, kind.dtype, kind.quantization))
        self.changed = True
        return inherit(node, source, value=False)

    def _sweep(self) -> None:
        """Drop the transposes and constants that nothing reads any more."""
        left = (self.problem.views.keys() - self.problem.values.keys()) | self.reshapes
        for node in reversed(list(self.graph.nodes)):
            if not node.users and (node in left or node.op == "get_attr"):
                self.graph.erase_node(node)
                self.changed = True
        if self.changed:
            prune_attributes(self.graph_module)


def _mapped(argument: Any, read: Any) -> Any:
    """An argument with each node in it replaced, in order."""
    if isinstance(argument, Node):
        return read()
    if isinstance(argument, list | tuple):
        return type(argument)(_mapped(item, read) for item in argument)
    return argument


def _permutation(operator: Operator, slot: Slot) -> Order | None:
    order = operator.layout(slot, operator.form).order
    return None if order == tuple(range(len(order))) else order


def _aligned(operator: Operator, slot: Slot, layout: Layout) -> Shape:
    """The shape of an operand such that its dimensions meet those of the result when aligned."""
    stored = stored_shape(slot.shape, layout)
    axes = operator.axes
    if axes is None or not axes.broadcasts or all(size == 1 for size in stored):
        return stored
    behind = operator.form.order[axes.count - len(slot.tags) :]
    if set(behind) == set(slot.tags):
        return stored
    sizes = dict(zip(slot.tags, slot.shape, strict=True))
    shape = [sizes.get(axis, 1) for axis in operator.form.order]
    while shape[0] == 1:
        del shape[0]
    return tuple(shape)
