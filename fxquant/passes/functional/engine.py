"""Makes the nodes of the core dialect.

Rules speak of *tensors*: fake tensors that stand for the values of the program, with the strides
and the memory sharing that eager PyTorch has. The engine knows the node that holds each tensor's
present value (`read`), and makes nodes in the new graph (`emit`).

    engine.call(aten.transpose.int, x, 0, 1)     any overload: its rule, or the operator itself
    engine.apply(aten.relu.default, named)       the operator itself
    engine.view(x, y, View(forward, backward))   y is a view of x
    engine.assign(x, value)                      x is written to
"""

from __future__ import annotations

import operator
from collections import namedtuple
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from fxquant.ir.aten import aten, packet_name
from fxquant.ir.edit import free_name, inherit, new_graph_like
from fxquant.passes.functional.aliases import IDENTITY, Alias, View, are_one, share_memory
from fxquant.passes.functional.schema import Named, bind, count_dimensions, first_tensor, spread
from fxquant.passes.functional.unsupported import Unsupported

Rule = Callable[["Engine", "Call"], Any]
RULES: dict[str, Rule] = {}


class Call:
    """One call of an overload, its arguments by name; `result` runs it on fake tensors once."""

    def __init__(self, target: OpOverload, named: Named) -> None:
        self.target = target
        self.named = named
        self._result: Any = None

    def __getitem__(self, name: str) -> Any:
        return self.named[name]

    @property
    def name(self) -> str:
        return packet_name(self.target)

    @property
    def result(self) -> Any:
        """What the operator returns on the fake tensors."""
        if self._result is None:
            args, kwargs = spread(self.target, self.named)
            self._result = self.target(*args, **kwargs)
        return self._result


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the spelling of the ATen operators with these names."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"{name} has two rules: {RULES[name]} and {function}")
            RULES[name] = function
        return function

    return register


class Engine:
    """The graph under construction and what is known of every tensor."""

    def __init__(self, root: GraphModule, fake_mode: FakeTensorMode) -> None:
        self.root = root
        self.graph: Graph = new_graph_like(root)
        self.fake_mode = fake_mode
        self.gradients = True
        self.new_modules: dict[str, torch.nn.Module] = {}
        self.origin: Node | None = None
        self._made: list[Node] = []
        self._aliases: dict[int, Alias] = {}
        self._paths = _paths(root)
        self._state_names = set(root.state_dict(keep_vars=True))
        self._kept: list[Tensor] = []  # An id stays taken only as long as its object lives.
        self._without_gradient: set[Node] = set()
        self._detached: dict[Node, Node] = {}

    # Tensors and their nodes.

    def read(self, tensor: Tensor) -> Node:
        """The node that holds a tensor's value now."""
        node = self.alias(tensor).read()
        if self.gradients and node in self._without_gradient:
            if node not in self._detached:
                self._detached[node] = self.emit(aten.detach.default, node, value=node.meta["val"])
            return self._detached[node]
        return node

    def alias(self, tensor: Tensor) -> Alias:
        """What is known of a tensor; parameters, buffers and constants get a `get_attr` node."""
        found = self._aliases.get(id(tensor))
        if found is None:
            if isinstance(tensor, FakeTensor):
                raise Unsupported("a tensor is made in a way that cannot be followed")
            found = self._adopt(tensor)
            self._aliases[id(tensor)] = found
        return found

    def lift(self, value: Any) -> Any:
        """Parameters and constants replaced by their fake tensors, inside lists and tuples too."""
        if isinstance(value, Tensor):
            return value if isinstance(value, FakeTensor) else self.alias(value).tensor
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            items = [self.lift(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, Mapping):
            return {key: self.lift(item) for key, item in value.items()}
        return value

    def define(self, tensor: Tensor, node: Node) -> Tensor:
        """Let a new tensor, with memory of its own, have the value of `node`."""
        self._aliases[id(tensor)] = Alias(tensor, node)
        return tensor

    def _adopt(self, tensor: Tensor) -> Alias:
        with self.real():
            plain = tensor.detach()
        path = self._paths.get(id(tensor))
        state = path if path is not None and path in self._state_names else None
        if path is None:
            path = free_name(self.root, "constant")
            self.root.register_buffer(path, plain, persistent=False)
            self._paths[id(tensor)] = path
            self._kept.append(tensor)
        fake = self.fake_mode.from_tensor(plain, static_shapes=True)
        node = self.graph.create_node("get_attr", path, (), {})
        node.meta["val"] = fake
        if self.origin is not None:
            inherit(node, self.origin, value=False)
        found = Alias(fake, node, state=state)
        self._aliases[id(fake)] = found
        return found

    # Nodes.

    def emit(self, target: OpOverload, *args: Any, value: Any = None, **kwargs: Any) -> Node:
        """A node that calls an operator on nodes; its value is computed unless it is known."""
        named = bind(target, args, kwargs)
        positional, keywords = spread(target, named)
        if value is None:
            fakes = map_arg((positional, keywords), lambda node: node.meta["val"])
            value = target(*fakes[0], **fakes[1])
        node = self._create("call_function", target, positional, keywords)
        node.meta["val"] = value
        return node

    def emit_module(self, path: str, tensor: Tensor, *rest: Any) -> Tensor:
        """Call a module; its result is like its input, or where that was not so like the traced."""
        args = (self.read(tensor), *map_tensors(rest, self.read))
        node = self._create("call_module", path, args, {})
        other = None if self.origin is None else _unlike_input(self.origin)
        node.meta["val"] = (
            torch.empty_like(tensor)
            if other is None
            else torch.empty(other.shape, dtype=other.dtype, device=other.device)
        )
        return self.define(node.meta["val"], node)

    def _create(self, kind: str, target: Any, args: Any, kwargs: Any) -> Node:
        hint = packet_name(target) if kind == "call_function" else str(target)
        name = f"{self.origin.name}_{hint}" if self.origin is not None else hint
        node = self.graph.create_node(kind, target, args, kwargs, name)
        return self._inherit(node)

    def _inherit(self, node: Node) -> Node:
        if self.origin is not None:
            inherit(node, self.origin, value=False)
        self._made.append(node)
        if not self.gradients:
            self._without_gradient.add(node)
        return node

    def begin(self, origin: Node) -> None:
        """What is made from now on comes from this node of the torch dialect."""
        self.origin = origin
        self._made.clear()

    def finish(self, value: Any) -> None:
        """Give the node that holds the result of the torch node the name which that one has."""
        tensor = first_tensor((value,))
        known = None if tensor is None else self._aliases.get(id(tensor))
        if known is None or self.origin is None or known.node not in self._made:
            return
        node, name = known.node, self.origin.name
        if node.op == "call_function" and not isinstance(node.target, OpOverload):
            source = node.args[0]
            assert isinstance(source, Node)
            source.name = name
            for getitem in source.users:
                getitem.name = f"{name}_out{getitem.args[1]}"
        else:
            node.name = name

    # Calls.

    def call(self, target: OpOverload, *args: Any, **kwargs: Any) -> Any:
        """Call any overload: by its rule, or as the operator itself."""
        named: Named = self.lift(bind(target, args, kwargs))
        count_dimensions(target, named)
        name = packet_name(target)
        if target._schema.is_mutable:
            return RULES["write"](self, Call(target, named))
        return RULES.get(name, _as_it_is)(self, Call(target, named))

    def apply(self, target: OpOverload, named: Named, result: Any = None) -> Any:
        """Call the operator itself and give its result, whose fake value may be known."""
        call = Call(target, named)
        result = call.result if result is None else result
        args, kwargs = map_tensors(spread(target, named), self.read)
        node = self._create("call_function", target, args, kwargs)
        if isinstance(result, Tensor):
            node.meta["val"] = result
            self._track_views(named, result, node)
            return result
        node.meta["val"] = tuple(result)
        for index, item in enumerate(result):
            self.define(item, self.emit_item(node, index))
        return with_names(target, result)

    def emit_item(self, source: Node, index: int) -> Node:
        """One output of an operator that has several."""
        node = self._create("call_function", operator.getitem, (source, index), {})
        node.meta["val"] = source.meta["val"][index]
        return node

    def _track_views(self, named: Named, result: Tensor, node: Node) -> None:
        """A view that no rule knows may be read, not written through."""
        self.define(result, node)
        for value in named.values():
            if isinstance(value, FakeTensor) and share_memory(value, result):
                source = self.alias(value)
                again = self._again(node, source.node)
                self._aliases[id(result)] = Alias(result, node, source, View(again))
                return

    def _again(self, node: Node, old: Node) -> Callable[[Node], Node]:
        """Makes the same call on a new source."""

        def forward(source: Node) -> Node:
            assert isinstance(node.target, OpOverload)
            args = [source if item is old else item for item in node.args]
            return self.emit(node.target, *args, value=node.meta["val"], **node.kwargs)

        return forward

    # Memory.

    def view(self, source: Tensor, result: Tensor, view: View = IDENTITY) -> Tensor:
        """Let `result` be a view of `source`; where eager PyTorch copies, a value of its own."""
        if result is source:
            return source
        node = view.forward(self.read(source))
        if share_memory(source, result):
            alias = Alias(result, node, self.alias(source), view)
        else:
            alias = Alias(result, node)
        self._aliases[id(result)] = alias
        return result

    def assign(self, target: Tensor, value: Tensor) -> Tensor:
        """Write a value, broadcast and converted as eager PyTorch does, to a tensor."""
        if are_one(target, value):  # `x[0] += 1` ends with x[0] = x[0].
            return target
        if value.dtype != target.dtype:
            value = self.call(aten._to_copy.default, value, dtype=target.dtype)
        if value.shape != target.shape:
            while value.dim() > target.dim():
                value = self.call(aten.select.int, value, 0, 0)
            value = self.call(aten.expand.default, value, list(target.shape))
        self.alias(target).write(self.read(value))
        return target

    def rebind(self, tensor: Tensor, result: Tensor) -> None:
        """Let `tensor` be what `result` is: for in-place operators that change the shape."""
        old = self.alias(tensor)
        if old.node.meta.get("val") is tensor:
            old.node.meta["val"] = tensor.detach()
        known = self.alias(result)
        self._aliases[id(tensor)] = Alias(tensor, known.read(), known.parent, known.view)

    def real(self) -> AbstractContextManager[Any]:
        """A context in which tensors are made for real, for constants."""
        return unset_fake_temporarily()


def _unlike_input(origin: Node) -> Tensor | None:
    """The traced result of a module whose shape or dtype is not that of its first input."""
    result, sources = origin.meta.get("val"), origin.all_input_nodes
    source = sources[0].meta.get("val") if sources else None
    if not isinstance(result, Tensor):
        return None
    if isinstance(source, Tensor) and (source.shape, source.dtype) == (result.shape, result.dtype):
        return None
    return result


def _as_it_is(engine: Engine, call: Call) -> Any:
    return engine.apply(call.target, call.named, call.result)


def _paths(root: GraphModule) -> dict[int, str]:
    """The first path of every parameter, buffer and plain tensor attribute."""
    paths: dict[int, str] = {}
    for prefix, module in root.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        tables = (module._parameters, module._buffers, module.__dict__)
        for table in tables:
            for name, tensor in table.items():
                if isinstance(tensor, Tensor):
                    paths.setdefault(id(tensor), dot + name)
    return paths


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Apply a function to every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(map_tensors(item, function) for item in value)
    if isinstance(value, list):
        return [map_tensors(item, function) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    return value


@cache
def _result_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Result", names)


def with_names(target: OpOverload, values: Any) -> Any:
    """The outputs of an operator under the names that its schema gives them."""
    names = tuple(item.name for item in target._schema.returns)
    if len(names) == len(values) and all(names) and len(set(names)) == len(names):
        return _result_type(names)(*values)
    return tuple(values)
