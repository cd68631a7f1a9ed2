"""Which node made which tensor: the recorder's memory.

Tensors are told apart by identity and kept alive while tracing. A part of a tuple becomes a
`getitem` node only when it is used. Tensors that no node made are parameters and buffers (read by
their qualified name) or constants (kept as `_constant_0`, …).

A constant that is written with traced values is copied first, in the graph, so that each call of
the graph starts from the same constant:

    out = torch.zeros(4); out[::2] = x
    ->  %_constant_0 = @_constant_0; %zeros = clone(%_constant_0); setitem(%zeros, …, %x)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, Node

from fxquant.errors import TraceError
from fxquant.ir.edit import free_name
from fxquant.ir.source import SourceLocation


@dataclass(slots=True)
class Value:
    """A tensor, kept alive, and the node that made it (or the place in that node's result)."""

    tensor: torch.Tensor
    node: Node
    place: tuple[Any, ...] = ()


@dataclass(slots=True)
class Constant:
    """A constant tensor, the version that was kept, and its `get_attr` node."""

    tensor: torch.Tensor
    version: int
    node: Node


class Values:
    """The map from tensors to nodes of one trace."""

    def __init__(
        self, graph: Graph, root: nn.Module, names: dict[int, str], fake_mode: FakeTensorMode
    ) -> None:
        self.graph = graph
        self.root = root
        self.names = names
        self.fake_mode = fake_mode
        self.locate: Callable[[], SourceLocation | None] = lambda: None
        self.dependent: set[Node] = set()
        self._values: dict[int, Value] = {}
        self._constants: dict[int, Constant] = {}
        self._written: dict[int, Value] = {}

    def bind(self, result: Any, node: Node, place: tuple[Any, ...] = ()) -> None:
        """Note that `node` made the tensors in `result`."""
        if isinstance(result, torch.Tensor):
            self._values[id(result)] = Value(result, node, place)
            return
        for key, part in parts_of(result):
            self.bind(part, node, (*place, key))

    def name_of(self, tensor: object) -> str | None:
        """The name of the node that made a tensor, if one did and is there already."""
        value = self._values.get(id(tensor))
        return None if value is None or value.place else value.node.name

    def is_traced(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor comes from an input, a parameter or a buffer."""
        key = id(tensor)
        if key in self._values or key in self.names:
            return True
        return bool(self._written) and self._storage(tensor) in self._written

    def depends_on_input(self, tensor: torch.Tensor) -> bool:
        """Whether the values of a tensor differ from call to call."""
        if isinstance(tensor, FakeTensor):
            return True
        value = self._values.get(id(tensor)) or self._written_value(tensor)
        return value is not None and value.node in self.dependent

    def node_of(self, tensor: torch.Tensor) -> Node:
        """The node that stands for a tensor, made if need be."""
        value = self._values.get(id(tensor))
        if value is not None:
            return value.node if not value.place else self._part(value)
        name = self.names.get(id(tensor))
        if name is not None:
            node = self._create("get_attr", name, (), tensor, name.replace(".", "_"))
            self._values[id(tensor)] = Value(tensor, node)
            return node
        written = self._written_value(tensor)
        if written is not None:
            return self._view(tensor, written)
        return self._constant(tensor)

    def own(self, tensor: torch.Tensor, *, dependent: bool) -> None:
        """Make a constant writable: each call of the graph gets a fresh copy of it."""
        if self.is_traced(tensor) or isinstance(tensor, FakeTensor):
            return
        base = tensor if tensor._base is None else tensor._base
        constant = self._constant(base)
        node = self._create("call_method", "clone", (constant,), base, f"{constant.name}_copy")
        self._values[id(base)] = self._written[self._storage(base)] = Value(base, node)
        if dependent:
            self.dependent.add(node)
        if base is not tensor:
            self._view(tensor, self._written[self._storage(base)])

    def written_nodes(self, tensor: torch.Tensor) -> Iterator[Node]:
        """The nodes whose values change when `tensor` is written."""
        value = self._values.get(id(tensor))
        if value is not None:
            yield value.node
        base = self._written_value(tensor)
        if base is not None:
            yield base.node

    def erase(self, node: Node) -> None:
        """Take a node out of the graph again, and forget its tensors."""
        self.graph.erase_node(node)
        self._values = {key: v for key, v in self._values.items() if v.node is not node}

    def fake(self, value: Any) -> Any:
        """The same structure with fake tensors, for `meta["val"]`."""
        if isinstance(value, FakeTensor):
            return value
        if isinstance(value, torch.Tensor):
            return self.fake_mode.from_tensor(value.detach())
        if isinstance(value, tuple | list):
            return tuple(self.fake(item) for item in value)
        if isinstance(value, dict):
            return {key: self.fake(item) for key, item in value.items()}
        return value

    def _create(
        self, op: str, target: Any, args: tuple[Any, ...], value: torch.Tensor, name: str
    ) -> Node:
        node = self.graph.create_node(op, target, args, {}, name)
        node.meta["val"] = self.fake(value)
        source = self.locate()
        if source is not None:
            node.meta["source"] = source
        return node

    def _part(self, value: Value) -> Node:
        node = value.node
        fake = node.meta["val"]
        dependent = node in self.dependent
        for key in value.place:
            fake = fake[key]
            with self.graph.inserting_after(node):
                name = f"{node.name}_{key}"
                part = self.graph.create_node(
                    "call_function", operator.getitem, (node, key), {}, name
                )
            part.meta.update(node.meta)
            part.meta["val"] = fake
            node = part
            if dependent:
                self.dependent.add(node)
        value.node, value.place = node, ()
        return node

    def _constant(self, tensor: torch.Tensor) -> Node:
        self.refuse_unseen(tensor)
        known = self._constants.get(id(tensor))
        if known is not None and known.version == version_of(tensor):
            return known.node
        name = free_name(self.root, "_constant_0") if not self._constants else self._next_name()
        if isinstance(tensor, nn.Parameter):
            self.root.register_parameter(name, tensor)
        else:
            self.root.register_buffer(name, tensor.detach().clone(), persistent=False)
        node = self._create("get_attr", name, (), tensor, name)
        self._constants[id(tensor)] = Constant(tensor, version_of(tensor), node)
        return node

    def _next_name(self) -> str:
        number = len(self._constants)
        while hasattr(self.root, f"_constant_{number}"):
            number += 1
        return f"_constant_{number}"

    def refuse_unseen(self, tensor: torch.Tensor) -> None:
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        if isinstance(tensor, FakeTensor) or wrapped or tensor.grad_fn is not None:
            source = self.locate()
            raise TraceError(
                "a tensor was made by code that tracing cannot see, such as a scripted function, "
                "torch.func or a C++ extension",
                source=str(source) if source else None,
                fix="write that part with torch functions, or register it by torch.library",
            )

    @staticmethod
    def _storage(tensor: torch.Tensor) -> int:
        try:
            return int(tensor.untyped_storage()._cdata)
        except (NotImplementedError, RuntimeError):
            return -id(tensor)

    def _written_value(self, tensor: torch.Tensor) -> Value | None:
        return self._written.get(self._storage(tensor)) if self._written else None

    def _view(self, tensor: torch.Tensor, base: Value) -> Node:
        place = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
        node = self._create("call_method", "as_strided", (base.node, *place), tensor, "view")
        if base.node in self.dependent:
            self.dependent.add(node)
        self._values[id(tensor)] = Value(tensor, node)
        return node


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written; inference tensors do not count."""
    return -1 if tensor.is_inference() else tensor._version


def parts_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and items of a tuple, list or dict."""
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        yield from enumerate(value)
    elif isinstance(value, dict):
        yield from value.items()


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, slice):
        yield from tensors_in((value.start, value.stop, value.step))
