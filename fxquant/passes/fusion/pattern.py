"""A pattern as a graph: the function is traced and functionalized like any model.

    def pattern(x, slope=any_float):      graph(%x): %y = leaky_relu(%x) {negative_slope=slope}
        return F.leaky_relu(x, slope) ->             return (%y)

Wildcards are found by tracing with two values: where the graphs differ, the literal stood. Shapes
and dimensions in the graph belong to the shapes of the tracing, so for a place in a model the same
function is traced again with the shapes and literals found there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from fxquant.ir.aten import is_aten, named_arguments, overload
from fxquant.ir.types import TensorType
from fxquant.passes.common_subexpressions import CommonSubexpressions
from fxquant.passes.dead_code import DeadCode
from fxquant.passes.functionalize import Functionalize
from fxquant.passes.fusion.readings import Readings
from fxquant.passes.fusion.wildcards import ANYTHING, Hole, Wildcard, same_literal
from fxquant.tracing import trace


class ShapeSpec(NamedTuple):
    """The shape and dtype of a tensor parameter."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @staticmethod
    def of(value: Tensor) -> ShapeSpec:
        """The spec of a tensor."""
        return ShapeSpec(tuple(int(size) for size in value.shape), value.dtype)

    def __str__(self) -> str:
        return str(TensorType.of(torch.empty(self.shape, dtype=self.dtype, device="meta")))


@dataclass(frozen=True)
class Pattern:
    """A traced function.

    Attributes:
        root: the graph with its constants.
        inputs: parameter name -> placeholder, for those that are tensors.
        outputs: the values returned.
        nodes: the operators.
    """

    root: GraphModule
    inputs: Mapping[str, Node]
    outputs: tuple[Node, ...]
    nodes: tuple[Node, ...]

    @cached_property
    def readings(self) -> Readings:
        """How the nodes read."""
        return Readings(self.root)

    def name(self, node: Node) -> str:
        """The parameter that a placeholder is; the own name of other nodes."""
        return next((name for name, its in self.inputs.items() if its is node), node.name)

    def holes(self) -> set[str]:
        """The names of the wildcards that stand in the graph; "" for what is computed from one."""
        names: set[str] = set()

        def note(argument: Any) -> Any:
            if isinstance(argument, Hole):
                names.add(argument.name)
            return argument

        for node in self.nodes:
            map_aggregate((node.args, node.kwargs), note)
        return names


def trace_function(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Pattern:
    """The core graph of a function for given literals and tensor specs."""
    names = [name for name, value in arguments.items() if isinstance(value, ShapeSpec)]

    def call(*tensors: Tensor) -> Any:
        values = {**arguments, **dict(zip(names, tensors, strict=True))}
        return function(*values.values())

    specs = [arguments[name] for name in names]
    examples = tuple(torch.empty(spec.shape, dtype=spec.dtype) for spec in specs)
    graph_module = Functionalize().run(trace(call, examples)).graph_module
    for item in (CommonSubexpressions(), DeadCode()):
        graph_module = item.run(graph_module).graph_module
    return _pattern(graph_module, names)


def _pattern(graph_module: GraphModule, names: list[str]) -> Pattern:
    nodes = list(graph_module.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    outputs = next(node for node in nodes if node.op == "output").args[0]
    operators = tuple(n for n in nodes if n.op in {"call_function", "call_module"})
    assert isinstance(outputs, tuple)
    inputs = dict(zip(names, placeholders, strict=True))
    return Pattern(graph_module, inputs, tuple(outputs), operators)


def trace_generic(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Pattern:
    """The graph of a function with a `Hole` wherever a wildcard stands."""
    wild = {name: value for name, value in arguments.items() if isinstance(value, Wildcard)}
    first, second = ({**arguments, **_samples(wild, which)} for which in (0, 1))
    pattern = trace_function(function, first)
    _write_defaults(pattern)
    for name, kind in wild.items():
        other = trace_function(function, {**first, name: second[name]})
        _write_defaults(other)
        if len(pattern.nodes) == len(other.nodes):
            _put_holes(pattern, other, Place(Hole(name, kind), first[name], second[name]))
    return pattern


class Place(NamedTuple):
    """A wildcard and the values with which its pattern was traced."""

    hole: Hole
    first: Any
    second: Any

    def within(self, first: Any, second: Any) -> Any:
        """What stands where two tracings have different literals."""
        if same_literal(self.first, first) and same_literal(self.second, second):
            return self.hole
        return replace(self.hole, name="", kind=ANYTHING)


def _samples(wild: Mapping[str, Wildcard], which: int) -> dict[str, Any]:
    # Floats apart from each other, so that the bounds of clamp(x, low, high) are not equal.
    return {
        name: kind.samples[which] + number if float in kind.kinds else kind.samples[which]
        for number, (name, kind) in enumerate(wild.items())
    }


def _write_defaults(pattern: Pattern) -> None:
    """Write out trailing defaults: a literal is one, too, where it is that of the schema."""
    for node in pattern.nodes:
        if is_aten(node):
            named = named_arguments(node)
            positional = [a.name for a in overload(node)._schema.arguments if not a.kwarg_only]
            node.args = tuple(named.pop(name) for name in positional)
            node.kwargs = named


def _put_holes(pattern: Pattern, other: Pattern, place: Place) -> None:
    for node, twin in zip(pattern.nodes, other.nodes, strict=True):
        pairs = zip(node.args, twin.args, strict=True)
        node.args = tuple(_differing(a, b, place) for a, b in pairs)
        node.kwargs = {k: _differing(v, twin.kwargs[k], place) for k, v in node.kwargs.items()}


def _differing(first: Any, second: Any, place: Place) -> Any:
    """The first value, with the hole where the second has another literal."""
    if isinstance(first, Node | Hole) or isinstance(second, Node):
        return first
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if list(first) == list(second):
            return first
        if place.hole.kind.whole and _literal(first):
            return place.within(first, second)
        if len(first) == len(second):
            return [_differing(a, b, place) for a, b in zip(first, second, strict=True)]
        return first
    same = type(first) is type(second) and first == second
    return first if same else place.within(first, second)


def _literal(value: Any) -> bool:
    return not any(isinstance(item, Node | list | tuple | Hole) for item in value)
