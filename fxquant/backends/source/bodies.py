"""The body of a `forward`: one statement for each node or call, in the order of the graph.

%conv1 = call_module[conv1](%x)            x = self.conv1(x)
%relu = relu(%conv1)                  ->   out = F.relu(x)
%add = call_method add_(%relu, %x)         out += x
return %add                                return out
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.fx import Node

from fxquant.backends.source.calls import Call, result_code
from fxquant.backends.source.expressions import Names, argument, expression
from fxquant.backends.source.layout import WIDTH, Code, Group, Hole, call, fill, flat, holes
from fxquant.backends.source.loops import fold_loops
from fxquant.backends.source.method_chains import join_methods
from fxquant.backends.source.places import Places
from fxquant.backends.source.regions import Item, Region
from fxquant.backends.source.statements import Statement
from fxquant.backends.source.succession import GOES_ON, function_name, predecessors
from fxquant.backends.source.variables import (
    RESERVED,
    Step,
    choose_names,
    label_of,
    module_label,
)
from fxquant.ir.functions import IN_PLACE
from fxquant.tracing.structure import Structure

MOST_PARTS = 8  # a tuple of more values is read by number
GATHERED = "inputs"
BODY = 8  # columns that a method's body is indented by
Comment = Callable[[Node], str | None]


@dataclass
class Body:
    """A method `forward`.

    Attributes:
        arguments: names of its parameters.
        statements: all but the return.
        result: what it returns, if anything.
    """

    arguments: list[str] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    result: Code | None = None

    def holes(self) -> Iterator[Hole]:
        """The numbers that may become attributes; their owners named as in this module."""
        for statement in self.statements:
            yield from holes(statement.code)

    def key(self) -> tuple[str, ...]:
        """Equal for bodies that differ only in such numbers."""
        blank = {hole: hole.name for hole in self.holes()}
        return (*self.arguments, *self.lines(blank))

    def lines(self, codes: Mapping[Any, str]) -> list[str]:
        """The text; a last statement that only makes the result is the return."""
        statements = [replace(each, code=fill(each.code, codes)) for each in self.statements]
        last = statements[-1] if statements else None
        if last is not None and last.is_assignment and self.result == last.targets[0]:
            returned = replace(statements.pop(), targets=(), before="return ")
            statements.append(returned)
        elif self.result is not None:
            statements.append(Statement((), _bare(self.result), before="return "))
        return [line for each in statements for line in each.lines(BODY)] or [" " * BODY + "pass"]


class BodyWriter:
    """Writes the body of one region."""

    def __init__(
        self,
        region: Region,
        places: Places,
        comment: Comment,
        inputs: Mapping[Node, str] | None = None,
    ) -> None:
        self.region, self.places, self.comment = region, places, comment
        self.shapes = False
        self.names: dict[Node, str] = {}
        self.gathered = inputs is None and _is_gathered(region)
        self.inputs = self._input_names() if inputs is None else dict(inputs)
        lists = {tuple(region.inputs): GATHERED} if self.gathered else {}
        self.spelling = Names(self.name, lists)
        self.readers = Counter(node for item in region.items for node in set(_operands(item)))
        self.readers.update(region.outputs)
        self.absorbed: set[Node] = set()
        self.fixed: set[Node] = set()
        self.unpacked: dict[Node, list[Node | None]] = {}
        self.steps = [(item, step) for item, step in self._steps() if step is not None]

    def write(self) -> Body:
        """The body of a region inside of the model."""
        outputs = self.region.outputs
        self.names = choose_names([step for _, step in self.steps], self.inputs, outputs)
        result = ", ".join(self.name(node) for node in outputs)
        statements = self.statements()
        arguments = [f"*{GATHERED}"] if self.gathered else list(self.inputs.values())
        return Body(arguments, statements, result or None)

    def write_root(
        self, around: Call, outputs: Sequence[Node], shape: Structure, *, shapes: bool = True
    ) -> Body:
        """The body of the model's own `forward`, around which stands the user's call.

        With `shapes`, a module that changes its input's says to what.
        """
        self.shapes = shapes
        self.names = choose_names([step for _, step in self.steps], self.inputs, outputs)
        unpack = [Statement([name], code) for name, code in around.unpack]
        result = result_code(shape, [self.name(node) for node in outputs], around)
        return Body(around.parameters, [*unpack, *self.statements()], result)

    def statements(self) -> list[Statement]:
        """All statements but the return, loops folded."""
        statements = [self._statement(item, step) for item, step in self.steps]
        return fold_loops(join_methods(statements), self.region.path, self.places)

    def name(self, node: Node) -> str:
        """How a value is read."""
        if node.op == "get_attr":
            target = self.places.below(self.region.path, str(node.target))
            if target is not None:
                return self.places.access(self.region.path, target)
        return self.names[node]

    def _input_names(self) -> dict[Node, str]:
        """The user's names where they are known, else x, and after what makes them."""
        names: dict[Node, str] = {}
        for node in () if self.gathered else self.region.inputs:
            wanted = self.region.names.get(node.name, "")
            if not wanted.isidentifier() or wanted in {*names.values(), *RESERVED}:
                wanted = "x" if "x" not in names.values() else f"x{len(names) + 1}"
            names[node] = wanted
        return names

    def _steps(self) -> Sequence[tuple[Item, Step | None]]:
        return [(item, self._step(item)) for item in self.region.items]

    def _step(self, item: Item) -> Step | None:
        if isinstance(item, Region):
            reads = self._variables(item.inputs)
            varying = [node for node in reads if node not in self.fixed]
            after = self._passed_on(varying[:1])
            return Step(module_label(item.path), reads, item.outputs, after)
        if item in self.absorbed:
            return None
        parts = self._parts(item)
        self.absorbed.update(parts.values())
        makes = list(parts.values()) or [item]
        if parts:
            places = range(len(item.meta["val"]))
            self.unpacked[item] = [parts.get(place) for place in places]
        reads = self._variables(item.all_input_nodes)
        varying = [node for node in reads if node not in self.fixed]
        if not varying:
            self.fixed.update(makes)
        after, function = predecessors(item, varying or reads), function_name(item)
        after = after if function in GOES_ON else self._passed_on(after)
        label = label_of(item, self.region.path)
        return Step(label, reads, makes, after, function, not varying)

    def _passed_on(self, after: list[Node]) -> list[Node]:
        """A value that others read too keeps its name."""
        return [node for node in after if self.readers[node] == 1]

    def _variables(self, nodes: Sequence[Node]) -> list[Node]:
        path = self.region.path
        return [
            node
            for node in nodes
            if node.op != "get_attr" or self.places.below(path, str(node.target)) is None
        ]

    def _parts(self, node: Node) -> dict[int, Node]:
        """The parts of a tuple that is only taken apart, by place."""
        value = node.meta.get("val")
        users = list(node.users)
        if not isinstance(value, tuple | list) or not 1 < len(value) <= MOST_PARTS or not users:
            return {}
        own = set(self.region.items)
        taken = [user for user in users if user.target is operator.getitem and user in own]
        parts = {int(str(user.args[1])): user for user in taken}
        return dict(sorted(parts.items())) if len(parts) == len(users) else {}

    def _statement(self, item: Item, step: Step) -> Statement:
        targets = [self.name(node) for node in step.makes]
        if isinstance(item, Region):
            owner = self.places.access(self.region.path, item.path)
            args: list[Code] = [self.name(node) for node in item.inputs]
            shape = self._shape(item.inputs, item.outputs)
            return Statement(
                targets, call(owner, args), module=item.path, arguments=args, comment=shape
            )
        comment = self.comment(item)
        in_place = self._augmented(item, targets)
        if in_place is not None:
            return Statement([], in_place, comment=comment)
        if item in self.unpacked:
            parts = self.unpacked[item]
            targets = ["_" if part is None else self.name(part) for part in parts]
        code = expression(item, self.spelling, self._module)
        used = any(node.users for node in step.makes)
        if item.target is operator.setitem or (not used and item.op == "call_method"):
            targets = []
        if item.op == "call_module" and isinstance(code, Group):
            path = self.places.below(self.region.path, str(item.target))
            plain = not (item.args and isinstance(item.args[0], str))
            comment = comment or self._shape(item.all_input_nodes, [item])
            return Statement(
                targets, code, path if plain else None, list(code.items), comment=comment
            )
        receiver = targets[0] if targets and _is_method_of(item, code, targets[0]) else ""
        starts = item.op == "call_method" and isinstance(code, Group) and not receiver
        return Statement(targets, code, comment=comment, receiver=receiver, starts_chain=starts)

    def _shape(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> str | None:
        """The shape that a module gives to its result, where shapes are shown and it differs."""
        if not self.shapes or not inputs or len(outputs) != 1:
            return None
        before, after = inputs[0].meta.get("val"), outputs[0].meta.get("val")
        if not isinstance(before, Tensor) or not isinstance(after, Tensor):
            return None
        return None if before.shape == after.shape else str(list(after.shape))

    def _augmented(self, node: Node, targets: Sequence[str]) -> str | None:
        sign = IN_PLACE.get(str(node.target)) if node.op == "call_method" else None
        if sign is None or len(node.args) != 2 or node.kwargs:
            return None
        owner = node.args[0]
        if not isinstance(owner, Node) or [self.name(owner)] != list(targets):
            return None
        return f"{targets[0]} {sign} {flat(argument(node.args[1], self.spelling))}"

    def _module(self, target: str) -> str:
        path = self.places.below(self.region.path, target)
        assert path is not None
        return self.places.access(self.region.path, path)


def _is_method_of(node: Node, code: Code, name: str) -> bool:
    """Whether `name` is given what one of its own methods makes of it."""
    own = isinstance(code, Group) and code.open == f"{name}.{node.target}("
    return own and node.op == "call_method"


def _operands(item: Item) -> Sequence[Node]:
    return item.inputs if isinstance(item, Region) else item.all_input_nodes


def _is_gathered(region: Region) -> bool:
    """Whether a module only joins what it is given: any number of values, as one list."""
    wanted = list(region.inputs)
    readers = {item for item in region.items for node in _operands(item) if node in wanted}
    if len(readers) != 1:
        return False
    (reader,) = readers
    if isinstance(reader, Region) or not reader.args:
        return False
    first, *rest = reader.args
    return (
        isinstance(first, list | tuple)
        and list(first) == wanted
        and not any(isinstance(each, Node) for each in rest)
    )


def _bare(result: Code) -> Code:
    """A tuple that fits a line needs no brackets."""
    if isinstance(result, Group) and (result.open, result.close) == ("(", ")"):
        text = ", ".join(flat(item) for item in result.items)
        return text if len(text) + BODY + len("return ") <= WIDTH else result
    return result
