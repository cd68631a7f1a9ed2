"""The GraphModule of every stage: one that copies and pickles whole.

`torch.fx` keeps only what the graph reads when it copies a GraphModule, and pickles generated code
that it traces again when loading, which loses the nodes' metadata and runs side effects. Here the
nodes themselves are stored, with their types and source lines, and all parameters stay. Code is
made when a stage is called, not whenever a pass changed it.
"""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen
from torch.fx.node import _get_qualified_name, map_aggregate


class StageModule(GraphModule):
    """A `torch.fx.GraphModule` that keeps everything in copies and pickles."""

    def __deepcopy__(self, memo: dict[int, Any]) -> StageModule:
        result = empty_stage(type(self).__name__)
        memo[id(self)] = result
        content = {k: v for k, v in self.__dict__.items() if k not in _GENERATED}
        result.__dict__.update(copy.deepcopy(content, memo))
        result.graph = copy.deepcopy(self.graph, memo)
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        content = {k: v for k, v in self.__dict__.items() if k not in _GENERATED}
        nodes = [store(node) for node in self.graph.nodes]
        return restore, (type(self).__name__, content, nodes, self.graph._codegen)

    def recompile(self) -> Any:
        """Make the code anew when the module is called next: most stages never are."""
        cls: Any = type(self)
        cls.forward = _compile_and_call

    def _compile(self) -> None:
        if type(self).forward is _compile_and_call:
            super().recompile()

    @property
    def code(self) -> str:
        """The Python code of the graph."""
        self._compile()
        return str(super().code)


def _compile_and_call(self: StageModule, *args: Any, **kwargs: Any) -> Any:
    self._compile()
    return self.forward(*args, **kwargs)


_GENERATED = frozenset({"_graph", "_code", "_lineno_map", "_prologue_start"})


def empty_stage(name: str) -> StageModule:
    """A StageModule without nodes."""
    return StageModule(nn.Module(), Graph(), name)


@dataclass(frozen=True)
class NodeName:
    """A reference to a node in stored arguments."""

    name: str


@dataclass(frozen=True)
class StoredTensor:
    """A fake tensor without its mode."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str


@dataclass(frozen=True)
class StoredNode:
    """One node as plain data."""

    name: str
    op: str
    target: str
    args: Any
    kwargs: Any
    meta: dict[str, Any]


def store(node: Node) -> StoredNode:
    """A node as plain data; functions go by name."""
    target = node.target if isinstance(node.target, str) else function_name(node.target)
    args, kwargs = map_aggregate((node.args, node.kwargs), _store_argument)
    meta = {key: map_aggregate(value, _store_value) for key, value in node.meta.items()}
    return StoredNode(node.name, node.op, target, args, kwargs, meta)


def restore(
    name: str, content: dict[str, Any], nodes: list[StoredNode], codegen: CodeGen
) -> StageModule:
    """Build the graph module again from stored nodes."""
    graph = Graph()
    known: dict[str, Node] = {}
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def argument(value: Any) -> Any:
        return known[value.name] if isinstance(value, NodeName) else value

    def meta_value(value: Any) -> Any:
        return _fake(mode, value) if isinstance(value, StoredTensor) else value

    for stored in nodes:
        target = resolve(stored.target) if stored.op == "call_function" else stored.target
        args: Any = map_aggregate(stored.args, argument)
        kwargs: Any = map_aggregate(stored.kwargs, argument)
        node = graph.create_node(stored.op, target, args, kwargs, stored.name)
        node.meta.update({k: map_aggregate(v, meta_value) for k, v in stored.meta.items()})
        known[stored.name] = node
    graph.set_codegen(codegen)
    result = empty_stage(name)
    result.__dict__.update(content)
    result.graph = graph
    return result


def function_name(function: Any) -> str:
    """The name under which a graph's function is found again.

    >>> function_name(torch.ops.aten.relu.default), function_name(torch.nn.functional.max_pool2d)
    ('torch.ops.aten.relu.default', 'torch.nn.functional.max_pool2d')
    """
    if isinstance(function, torch._ops.OpOverload):
        return f"torch.ops.{function}"
    return str(_get_qualified_name(function))


def resolve(name: str) -> Any:
    """The function of that name.

    >>> resolve("torch.ops.aten.relu.default")
    <OpOverload(op='aten.relu', overload='default')>
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                value = getattr(value, part)
        except (ImportError, AttributeError):
            continue
        return value
    builtins = importlib.import_module("builtins")
    return getattr(builtins, name)


def _store_argument(value: Any) -> Any:
    return NodeName(value.name) if isinstance(value, Node) else value


def _store_value(value: Any) -> Any:
    if isinstance(value, FakeTensor):
        shape, stride = tuple(value.shape), tuple(value.stride())
        return StoredTensor(shape, stride, value.dtype, str(value.device))
    return value


def _fake(mode: FakeTensorMode, stored: StoredTensor) -> torch.Tensor:
    with mode:
        return torch.empty_strided(
            stored.shape, stored.stride, dtype=stored.dtype, device=stored.device
        )
