"""Write every core operator as operators of the file format.

    %c = conv2d(%x, @w, @b) {stride=[2,2]}   ->   %x_nhwc = transpose(%x) {perm=(0,2,3,1)}
                                                  %c = conv_2d(%x_nhwc, @w, @b) {stride_h=2, …}
                                                  %c_1 = transpose(%c) {perm=(0,3,1,2)}

Each operator has a rule (see `registry.py`); one that has none is decomposed by PyTorch's own
tables and tried again. All operators that stay unsupported are reported in one error.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from fxquant.backends.lowering.decompose import decompose, operands_of
from fxquant.backends.tflite.dialect.values import QType
from fxquant.backends.tflite.layout.borders import update_signature
from fxquant.errors import InputError, Problem, UnsupportedOp
from fxquant.ir.aten import is_aten, overload, packet_name
from fxquant.ir.edit import get_attribute, inherit, make_graph_module, new_graph_like
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import copy_state, state_of
from fxquant.ir.types import TensorType
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.registry import register_pass

from .border_grids import at_border, widest
from .modules import MODULE_RULES
from .quantized_types import (
    DYNAMIC,
    DeQuantStub,
    QuantStub,
    is_fake_quantize,
    is_stub,
    quantized_types,
)
from .registry import RULES, Rule
from .rewriter import NoIntegerForm, Rewriter, Unsupported
from .values import Constant, Value
from .weights import fake_quantized_constant


@register_pass
@dataclass(frozen=True)
class LegalizeTflite(Pass):
    """Write the core dialect in the operators of TFLite; the result runs in torch.

    graph(%x: f32[1,4]):                          graph(%x: f32[1,4]):
      %y = relu(%x) : f32[1,4]              ->      %y = relu(%x) : f32[1,4]
      return (%y)                                   return (%y)

    Attributes:
        io_dtype: dtype of the graph's inputs and outputs that are quantized anyway; "float32"
            keeps floats.
        integer_only: use integer kernels also where a float island is faster and closer.
        bfloat16_storage: dtype in which constants rounded to bfloat16 are stored.
    """

    name: ClassVar[str] = "legalize-tflite"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    establishes: ClassVar[frozenset[str]] = frozenset({"tfl"})
    invalidates: ClassVar[frozenset[str]] = frozenset({"functional"})
    semantics: ClassVar[Semantics] = close(1e-3)

    io_dtype: str = "float32"
    integer_only: bool = False
    bfloat16_storage: str = "float32"

    def run(self, graph_module: GraphModule) -> PassResult:
        return PassResult(_Legalizer(graph_module, self).run(), True)


class _Legalizer:
    """One walk over the core graph."""

    def __init__(self, old: GraphModule, options: LegalizeTflite) -> None:
        self.old = old
        self.options = options
        self.types = quantized_types(old)
        self.graph = new_graph_like(old)
        self.root = nn.Module()
        self.rewriter = Rewriter(
            self.graph,
            self.root,
            integer_only=options.integer_only,
            bfloat16_storage=options.bfloat16_storage,
        )
        self.values: dict[Node, Any] = {}
        self.stored: dict[Node, Constant] = {}
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.integer_io = options.io_dtype != "float32"
        self.islands: dict[str, str] = {}
        self.float_borders: list[str] = []
        self.integer_borders = 0

    def run(self) -> GraphModule:
        for node in self.old.graph.nodes:
            self.rewriter.origin = node
            self.rewriter.out = self.types.get(node)
            self.visit(node)
        if self.problems:
            count = len(self.problems)
            raise UnsupportedOp(
                f"tflite cannot express {count} operator{'s' * (count != 1)} of the graph",
                problems=self.problems,
            )
        _sweep(self.graph)
        new = make_graph_module(self.root, self.graph)
        new.meta.update({key: v for key, v in self.old.meta.items() if key != "fxquant"})
        copy_state(self.old, new)
        state_of(new).islands.update(self.islands)
        if self.integer_io:
            self._check_borders()
            update_signature(new)
        if self.notes:
            state_of(new).notes.setdefault(LegalizeTflite.name, []).extend(self.notes)
        return new

    def visit(self, node: Node) -> None:
        """Write one core node."""
        if node.op == "call_function":
            self.values[node] = self._function(node)
        else:
            getattr(self, f"_{node.op}")(node)

    # -- what is no operator -------------------------------------------------------------------

    def _placeholder(self, node: Node) -> None:
        default = node.args[0] if node.args else None
        args = (default,) if node.args else ()
        new = self.graph.create_node("placeholder", str(node.target), args, {}, name=node.name)
        value = node.meta["val"]
        kind = TensorType.of(value)
        bound = self._bound_type(node)
        if bound is not None:
            kind = TensorType(kind.shape, bound.torch_dtype)
        new.meta["type"] = kind
        new.meta["val"] = torch.empty(kind.shape, dtype=kind.dtype, device="meta")
        inherit(new, node, value=False)
        self.values[node] = new
        if bound is not None:
            self.values[node] = self.rewriter.bind(new, bound)

    def _bound_type(self, node: Node) -> QType | None:
        """The grid of an input that only quantized regions read."""
        value = node.meta["val"]
        if not (self.integer_io and value.is_floating_point() and node.users):
            return None
        grids = {_entry_grid(self.old, user, self.types) for user in node.users}
        known = {grid for grid in grids if grid is not None}
        if len(known) < len(grids):
            self.float_borders.append(f"input %{node.name}")
            return None
        self.integer_borders += 1
        return at_border(widest(known), self.options.io_dtype)

    def _check_borders(self) -> None:
        """Say which inputs and outputs stay float; if all do, nothing is as it was asked for."""
        dtype = self.options.io_dtype
        if self.float_borders and not self.integer_borders:
            names = ", ".join(self.float_borders)
            raise InputError(
                f'io_dtype="{dtype}", but nothing at the borders is quantized: {names}',
                fix='quantize the model, or leave io_dtype="float32"',
            )
        self.notes.extend(f"{name} stays float32, not {dtype}" for name in self.float_borders)

    def _get_attr(self, node: Node) -> None:
        data = get_attribute(self.old, str(node.target))
        self.values[node] = (
            Constant(str(node.target), data) if isinstance(data, torch.Tensor) else data
        )

    def _call_module(self, node: Node) -> None:
        module = get_attribute(self.old, str(node.target))
        if isinstance(module, QuantStub | DeQuantStub):
            value = self.values[_operand(node)]
            entering = isinstance(module, QuantStub) or self._leaves_as_integers(node)
            self.values[node] = value if entering else self.rewriter.float(value)
            return
        rule = MODULE_RULES.get(type(module))
        if rule is None:
            self._refuse(node, f"tflite has no rule for the module {type(module).__name__}")
            self.values[node] = _Missing()
            return
        read = self._value if node in self.types else self._float
        args = [read(item) for item in node.all_input_nodes]
        self.values[node] = rule(self.rewriter, module, *args)

    def _leaves_as_integers(self, node: Node) -> bool:
        return self.integer_io and all(user.op == "output" for user in node.users)

    def _output(self, node: Node) -> None:
        result = map_arg(node.args[0], self._result)
        new = self.graph.output(result)
        inherit(new, node)

    def _result(self, node: Node) -> Node:
        value = self.values[node]
        self.rewriter.origin = node
        if isinstance(value, _Missing):
            if value.node is not None:
                what = f"tflite has no operator for the second result of {_name(value.node)}"
                self._refuse(value.node, what)
            return self.graph.create_node("placeholder", "missing", (), {})
        if self.rewriter.is_quantized(value):
            if self.integer_io:
                self.integer_borders += 1
                return self.rewriter.unbind(self._on_border(value))
            value = self.rewriter.float(value)
        if self.integer_io and self.rewriter.dtype(value).is_floating_point:
            self.float_borders.append(f"output %{node.name}")
        return self.rewriter.node(value)

    def _on_border(self, value: Value) -> Value:
        grid = self.rewriter.qtype(value)
        return (
            value
            if grid is None
            else self.rewriter.quantize(value, at_border(grid, self.options.io_dtype))
        )

    # -- operators -----------------------------------------------------------------------------

    def _function(self, node: Node) -> Any:
        if node.target is operator.getitem:
            source, index = node.args
            whole = self.values[source]  # type: ignore[index]
            return whole if isinstance(whole, _Missing) else whole[index]
        missing = [
            self.values[item]
            for item in node.all_input_nodes
            if isinstance(self.values[item], _Missing)
        ]
        if getattr(node.target, "__name__", "").startswith("return_types"):
            return tuple(self.values[item] for item in node.all_input_nodes)
        if missing:
            if missing[0].node is not None:
                return missing[0]
            if is_aten(node) and overload(node) not in RULES and decompose(node, RULES) is None:
                self._refuse(node)
            return _Missing()
        if is_fake_quantize(node):
            return self._fake_quantize(node)
        if node.target is DYNAMIC:  # what reads it quantizes by itself
            return self._float(node.all_input_nodes[0])
        return self._aten(node)

    def _aten(self, node: Node) -> Any:
        rule = RULES.get(overload(node)) if is_aten(node) else None
        if rule is not None:
            try:
                return self._apply(rule, node)
            except Unsupported as refusal:
                self._refuse(node, f"tflite cannot express {_name(node)}: {refusal}")
                return _Missing()
        parts = decompose(node, RULES) if is_aten(node) else None
        if parts is None:
            self._refuse(node)
            return _Missing()
        return self._inline(node, parts)

    def _apply(self, rule: Rule, node: Node) -> Any:
        kind = self.types.get(node)
        if kind is not None:
            try:
                return self._call_rule(rule, node, kind)
            except NoIntegerForm as why:
                self.islands[node.name] = str(why) or "its integer kernel is not used"
                result = self._call_rule(rule, node, None)
                self.notes.append(f"%{node.name}: {packet_name(node.target)} is computed in float")
                return self.rewriter.quantize(result, kind)
        if any(item in self.types for item in node.all_input_nodes):
            self._note_float(node, rule)
        hybrid = any(item.target is DYNAMIC for item in node.all_input_nodes)
        return self._call_rule(rule, node, None, self._hybrid if hybrid else self._stored)

    def _call_rule(
        self,
        rule: Rule,
        node: Node,
        kind: QType | None,
        read_float: Callable[[Node], Any] | None = None,
    ) -> Any:
        self.rewriter.core = node
        self.rewriter.out = kind
        read = (read_float or self._float) if kind is None else self._value
        args, kwargs = _resolved(node.args, read), _resolved(node.kwargs, read)
        result = rule.function(self.rewriter, *args, **kwargs)
        if isinstance(result, tuple):
            return tuple(_Missing(node) if part is None else part for part in result)
        return result

    def _value(self, node: Node) -> Any:
        return self.values[node]

    def _float(self, node: Node) -> Any:
        value = self.values[node]
        if isinstance(value, Node | Constant):
            return self.rewriter.float(value)
        return value

    def _hybrid(self, node: Node) -> Any:
        """For kernels that quantize float activations: integer weights stay what they are."""
        value = self.values[node]
        return value if isinstance(value, Constant) else self._float(node)

    def _stored(self, node: Node) -> Any:
        """For float operators: integer weights stay in the file, behind a DEQUANTIZE."""
        value = self.values[node]
        if not isinstance(value, Constant):
            return self._float(node)
        if node not in self.stored:
            self.stored[node] = value.stored()
        return self.stored[node]

    def _note_float(self, node: Node, rule: Rule) -> None:
        why = (
            "has no integer form"
            if rule.mode == "float"
            else "has float operands or an open result"
        )
        self.notes.append(f"%{node.name}: {packet_name(node.target)} {why}; computed in float")

    def _fake_quantize(self, node: Node) -> Value:
        value = self.values[node.args[0]]  # type: ignore[index]
        if isinstance(value, Constant) and value.quantization is None:
            return fake_quantized_constant(self.old, node, value)
        return self.rewriter.quantize(value, self.types[node])

    def _inline(self, node: Node, parts: GraphModule) -> Any:
        """Write the graph that a node is decomposed into, in its place."""
        outer = self.values, self.old, self.types
        inputs = [self._float(operand) for operand in operands_of((node.args, node.kwargs))]
        names = [item for item in parts.graph.nodes if item.op == "placeholder"]
        self.values = dict(zip(names, inputs, strict=True))
        self.old, self.types = parts, {}
        try:
            for item in parts.graph.nodes:
                if item.op == "output":
                    return _resolved(item.args[0], self._value)
                if item.op != "placeholder":
                    inherit(item, node, value=False)
                    self.visit(item)
        finally:
            self.values, self.old, self.types = outer
        return None

    def _refuse(self, node: Node, what: str | None = None) -> None:
        self.problems.append(
            Problem(
                what or f"tflite has no rule for {_name(node)}",
                format_node(node, self.old),
                source_text(node),
                "replace the operator, or register a rule with @legalize",
            )
        )


@dataclass(frozen=True)
class _Missing:
    """Stands for a result that could not be written.

    Attributes:
        node: the node to report if the result is needed after all; None where it is reported.
    """

    node: Node | None = None


def _resolved(arguments: Any, read: Callable[[Node], Any]) -> Any:
    """Arguments with the value of every node instead of the node."""
    if isinstance(arguments, Node):
        return read(arguments)
    if isinstance(arguments, list | tuple):
        return [_resolved(part, read) for part in arguments]
    if isinstance(arguments, dict):
        return {key: _resolved(part, read) for key, part in arguments.items()}
    return arguments


def _operand(node: Node) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    return source


def _entry_grid(root: GraphModule, user: Node, types: dict[Node, QType]) -> QType | None:
    if is_stub(root, user, QuantStub):
        grids = {_entry_grid(root, each, types) for each in user.users}
        known = {grid for grid in grids if grid is not None}
        return widest(known) if known and len(known) == len(grids) else None
    return types[user] if is_fake_quantize(user) else None


def _name(node: Node) -> str:
    return f"aten.{packet_name(node.target)}" if is_aten(node) else str(node.target)


def _sweep(graph: Any) -> None:
    """Drop what nothing reads; inputs stay."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in {"placeholder", "output"}:
            graph.erase_node(node)
