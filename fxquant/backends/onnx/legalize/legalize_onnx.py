"""Write every core operator as operators of ONNX.

    %x_q = fake_quantize_per_tensor_affine(%x) {scale=0.02, …}   %y = conv2d(%x_q, @w, @b)
      ->
    %x_q = quantize_linear(%x, 0.02, 0); %x_q_1 = dequantize_linear(%x_q, 0.02, 0)
    %y = conv(%x_q_1, @w, @b)

Each operator has a rule (see `registry.py`); one that has none is decomposed by PyTorch's own
tables and tried again. All operators that stay unsupported are reported in one error. Values that
are only moved are put on their grid again, which changes nothing and tells a runtime that the
move can be done on integers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from fxquant.backends.lowering.constants import Constant, Value
from fxquant.backends.lowering.decompose import decompose, operands_of
from fxquant.backends.onnx.dialect import movement
from fxquant.errors import Problem, UnsupportedOp
from fxquant.ir.aten import is_aten, overload, packet_name
from fxquant.ir.edit import get_attribute, inherit, make_graph_module, new_graph_like
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import copy_state
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.registry import register_pass
from fxquant.tracing.dynamic.generalizer import dimensions_of

from .dynamic import for_all_sizes
from .modules import MODULE_RULES, PASSING
from .registry import RULES, Rule
from .rewriter import Rewriter, Unsupported
from .weights import PER_CHANNEL, PER_TENSOR, fake_quantized_constant, grid_of


@register_pass
@dataclass(frozen=True)
class LegalizeOnnx(Pass):
    """Write the core dialect in the operators of ONNX; the result runs in torch.

    graph(%x: f32[1,4]):                          graph(%x: f32[1,4]):
      %y = hardtanh(%x) : f32[1,4]          ->      %y = clip(%x, -1, 1) : f32[1,4]
      return (%y)                                   return (%y)

    Attributes:
        opset: the version of the operators that may be used.
        float_bias: biases of quantized layers stay float.
    """

    name: ClassVar[str] = "legalize-onnx"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    establishes: ClassVar[frozenset[str]] = frozenset({"onnx"})
    invalidates: ClassVar[frozenset[str]] = frozenset({"functional"})
    semantics: ClassVar[Semantics] = close(1e-3)

    opset: int = 17
    float_bias: bool = False

    def run(self, graph_module: GraphModule) -> PassResult:
        def write(core: GraphModule) -> GraphModule:
            return _Legalizer(core, self).run()

        if dimensions_of(graph_module):
            return PassResult(for_all_sizes(graph_module, write, self.opset), True)
        return PassResult(write(graph_module), True)


class _Legalizer:
    """One walk over the core graph."""

    def __init__(self, old: GraphModule, options: LegalizeOnnx) -> None:
        self.old = old
        self.graph = new_graph_like(old)
        self.root = nn.Module()
        self.rewriter = Rewriter(self.graph, self.root, options.opset, options.float_bias)
        self.values: dict[Node, Any] = {}
        self.constants: dict[int, Constant] = {}
        self.problems: list[Problem] = []

    def run(self) -> GraphModule:
        for node in self.old.graph.nodes:
            self.rewriter.origin = node
            self.visit(node)
        if self.problems:
            count = len(self.problems)
            raise UnsupportedOp(
                f"onnx cannot express {count} operator{'s' * (count != 1)} of the graph",
                problems=self.problems,
            )
        _sweep(self.graph)
        new = make_graph_module(self.root, self.graph)
        new.meta.update({key: v for key, v in self.old.meta.items() if key != "fxquant"})
        copy_state(self.old, new)
        return new

    def visit(self, node: Node) -> None:
        """Write one core node."""
        if node.op == "call_function":
            self.values[node] = self._function(node)
        else:
            getattr(self, f"_{node.op}")(node)

    # -- what is no operator -------------------------------------------------------------------

    def _placeholder(self, node: Node) -> None:
        new = self.graph.create_node("placeholder", str(node.target), node.args, {}, name=node.name)
        value = node.meta["val"]
        new.meta["val"] = torch.empty(value.shape, dtype=value.dtype, device="meta")
        new.meta.update({key: node.meta[key] for key in ("names",) if key in node.meta})
        self.values[node] = inherit(new, node, value=False)

    def _get_attr(self, node: Node) -> None:
        data = get_attribute(self.old, str(node.target))
        if isinstance(data, torch.Tensor):  # tied weights are stored once
            data = self.constants.setdefault(id(data), Constant(str(node.target), data))
        self.values[node] = data

    def _call_module(self, node: Node) -> None:
        module = get_attribute(self.old, str(node.target))
        operands = [self.values[item] for item in node.all_input_nodes]
        if any(isinstance(value, _Missing) for value in operands):
            self.values[node] = _Missing()
        elif isinstance(module, PASSING):
            self.values[node] = operands[0]
        elif type(module) in MODULE_RULES:
            self.values[node] = MODULE_RULES[type(module)](self.rewriter, module, *operands)
        else:
            self._refuse(node, f"onnx has no rule for the module {type(module).__name__}")
            self.values[node] = _Missing()

    def _output(self, node: Node) -> None:
        returned = node.args[0]
        assert isinstance(returned, list | tuple)
        self.rewriter.origin = None
        seen: set[Node] = set()
        results = []
        for item in returned:
            value = self.values[item] if isinstance(item, Node) else item
            if isinstance(value, Node | Constant):
                value = self._result(value, seen)
            results.append(value)
        if not self.problems:
            inherit(self.graph.output(tuple(results)), node)

    def _result(self, value: Value, seen: set[Node]) -> Node:
        """An output of its own name: neither an input, nor a constant, nor returned twice."""
        node = self.rewriter.node(value)
        if node.op != "call_function" or node in seen:
            node = self.rewriter.emit(movement.identity, node)
        seen.add(node)
        return node

    # -- operators -----------------------------------------------------------------------------

    def _function(self, node: Node) -> Any:
        if any(isinstance(self.values[item], _Missing) for item in node.all_input_nodes):
            if is_aten(node) and overload(node) not in RULES and decompose(node, RULES) is None:
                self._refuse(node)
            return _Missing()
        if node.target is operator.getitem:
            source, index = node.args
            return self._part(node, self.values[source][index])  # type: ignore[index]
        if getattr(node.target, "__name__", "").startswith("return_types"):
            return tuple(self.values[item] for item in node.all_input_nodes)
        try:
            if node.target in (PER_TENSOR, PER_CHANNEL):
                return self._fake_quantize(node)
            rule = RULES.get(overload(node)) if is_aten(node) else None
            if rule is not None:
                return self._apply(rule, node)
        except Unsupported as refusal:
            self._refuse(node, f"onnx cannot express {_name(node)}: {refusal}")
            return _Missing()
        parts = decompose(node, RULES) if is_aten(node) else None
        if parts is None:
            self._refuse(node)
            return _Missing()
        return self._inline(node, parts)

    def _part(self, node: Node, value: Any) -> Any:
        if value is None:
            what = f"onnx has no operator for every result of {_name(node.all_input_nodes[0])}"
            self._refuse(node, what)
            return _Missing()
        return value

    def _apply(self, rule: Rule, node: Node) -> Any:
        self.rewriter.core = node
        args, kwargs = _resolved(node.args, self._value), _resolved(node.kwargs, self._value)
        result = rule.function(self.rewriter, *args, **kwargs)
        return self._kept_on_grid(node, result) if rule.moves else result

    def _kept_on_grid(self, node: Node, result: Any) -> Any:
        operands = [self.values[item] for item in node.all_input_nodes]
        grids = {self.rewriter.grids.get(value) for value in operands if isinstance(value, Node)}
        grid = grids.pop() if len(grids) == 1 else None
        if grid is None:
            return result
        if isinstance(result, tuple):
            return tuple(None if x is None else self._on_grid(x, grid, operands) for x in result)
        return self._on_grid(result, grid, operands)

    def _on_grid(self, value: Any, grid: Any, operands: list[Any]) -> Any:
        real = isinstance(value, Node) and self.rewriter.dtype(value).is_floating_point
        return self.rewriter.on_grid(value, grid) if real and value not in operands else value

    def _value(self, node: Node) -> Any:
        return self.values[node]

    def _fake_quantize(self, node: Node) -> Value:
        value = self.values[node.args[0]]  # type: ignore[index]
        if isinstance(value, Constant) and value.quantization is None:
            return fake_quantized_constant(self.old, node, value)
        if node.target is PER_CHANNEL:
            raise Unsupported("only constants have one scale a channel")
        return self.rewriter.on_grid(value, grid_of(node, self.rewriter.opset))

    def _inline(self, node: Node, parts: GraphModule) -> Any:
        """Write the graph that a node is decomposed into, in its place."""
        outer = self.values, self.old
        inputs = [self.values[operand] for operand in operands_of((node.args, node.kwargs))]
        names = [item for item in parts.graph.nodes if item.op == "placeholder"]
        self.values, self.old = dict(zip(names, inputs, strict=True)), parts
        try:
            for item in parts.graph.nodes:
                if item.op == "output":
                    return _tuple(_resolved(item.args[0], self._value))
                if item.op != "placeholder":
                    inherit(item, node, value=False)
                    self.visit(item)
        finally:
            self.values, self.old = outer
        return None

    def _refuse(self, node: Node, what: str | None = None) -> None:
        self.problems.append(
            Problem(
                what or f"onnx has no rule for {_name(node)}",
                format_node(node, self.old),
                source_text(node),
                "replace the operator, or register a rule with @legalize",
            )
        )


@dataclass(frozen=True)
class _Missing:
    """Stands for a result that could not be written and is reported."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _resolved(arguments: Any, read: Callable[[Node], Any]) -> Any:
    """Arguments with the value of every node instead of the node."""
    if isinstance(arguments, Node):
        return read(arguments)
    if isinstance(arguments, list | tuple):
        return [_resolved(part, read) for part in arguments]
    if isinstance(arguments, dict):
        return {key: _resolved(part, read) for key, part in arguments.items()}
    return arguments


def _name(node: Node) -> str:
    return f"aten.{packet_name(node.target)}" if is_aten(node) else str(node.target)


def _sweep(graph: Graph) -> None:
    """Drop what nothing reads; inputs stay."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in {"placeholder", "output"}:
            graph.erase_node(node)
