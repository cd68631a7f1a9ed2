"""Editing a graph without losing what is known of it.

Every rewrite goes through these few functions, so that the user's source line, the value's type
and the names of the passes that touched a node survive.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen

from fxquant.errors import InvalidGraph
from fxquant.ir.graph_module import empty_stage
from fxquant.ir.state import copy_state

OUTSIDE = "outside"
"""Where a node keeps why it stays float whatever the target can: the user's stubs say so."""
CURRENT_PASS: contextvars.ContextVar[str | None] = contextvars.ContextVar("pass", default=None)


@contextlib.contextmanager
def running_pass(name: str) -> Iterator[None]:
    """Mark the nodes made inside as made by the pass `name`."""
    token = CURRENT_PASS.set(name)
    try:
        yield
    finally:
        CURRENT_PASS.reset(token)


def inherit(node: Node, origin: Node, *, value: bool = True) -> Node:
    """Give a new node the source line and (with `value`) the fake value of the one it replaces."""
    if "source" in origin.meta and "source" not in node.meta:
        node.meta["source"] = origin.meta["source"]
    for key in ("core", OUTSIDE):
        if key in origin.meta:
            node.meta.setdefault(key, origin.meta[key])
    if value and "val" in origin.meta and "val" not in node.meta:
        node.meta["val"] = origin.meta["val"]
    note_pass(node, origin.meta.get("passes", ()))
    return node


def note_pass(node: Node, before: tuple[str, ...] = ()) -> None:
    """Add the running pass to a node's provenance."""
    name = CURRENT_PASS.get()
    passes = (*before, *node.meta.get("passes", ()))
    if name is not None and name not in passes:
        passes = (*passes, name)
    node.meta["passes"] = tuple(dict.fromkeys(passes))


def replace_node(old: Node, new: Node) -> None:
    """Let every user of `old` read `new`, pass the origin on, and erase `old`."""
    inherit(new, old)
    old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    old.graph.erase_node(old)


def get_attribute(root: nn.Module, target: str) -> Any:
    """The object at a dotted path below `root`.

    Raises:
        InvalidGraph: the path leads nowhere.
    """
    try:
        return attrgetter(target)(root)
    except AttributeError as error:
        what = f"the graph reads @{target}, which the module does not have"
        raise InvalidGraph(what) from error


def tensor_at(root: nn.Module, node: Node) -> torch.Tensor:
    """The tensor that a `get_attr` node reads."""
    value = get_attribute(root, str(node.target))
    if not isinstance(value, torch.Tensor):
        raise InvalidGraph(f"@{node.target} is a {type(value).__name__}, not a tensor")
    return value


def is_attribute(value: object) -> bool:
    """Whether an argument is a `get_attr` node."""
    return isinstance(value, Node) and value.op == "get_attr"


def _owner(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    *parents, name = path.split(".")
    module = root
    for part in parents:
        if not isinstance(getattr(module, part, None), nn.Module):
            module.add_module(part, nn.Module())
        child = getattr(module, part)
        assert isinstance(child, nn.Module)
        module = child
    return module, name


def free_name(root: nn.Module, wanted: str) -> str:
    """`wanted`, or `wanted_1`, … : a dotted path at which nothing, or None, stands yet."""
    owner, name = _owner(root, wanted)
    prefix = wanted[: len(wanted) - len(name)]
    taken, number = name, 0
    while getattr(owner, taken, None) is not None:
        number += 1
        taken = f"{name}_{number}"
    return prefix + taken


def _clear(owner: nn.Module, name: str) -> None:
    """Take away a None that is registered under a name (a layer without bias has one)."""
    if hasattr(owner, name):
        delattr(owner, name)


def add_buffer(root: nn.Module, wanted: str, tensor: torch.Tensor) -> str:
    """Register a constant below `root` under a free name and return that name."""
    path = free_name(root, wanted)
    owner, name = _owner(root, path)
    _clear(owner, name)
    owner.register_buffer(name, tensor.detach())
    return path


def add_parameter(root: nn.Module, wanted: str, tensor: torch.Tensor) -> str:
    """Register a trainable parameter below `root` under a free name and return that name."""
    path = free_name(root, wanted)
    owner, name = _owner(root, path)
    _clear(owner, name)
    owner.register_parameter(name, nn.Parameter(tensor.detach()))
    return path


def register(root: nn.Module, path: str, tensor: torch.Tensor) -> None:
    """Let a parameter or buffer that stands elsewhere below `root` stand at a second path too."""
    owner, name = _owner(root, path)
    _clear(owner, name)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(name, tensor)
    else:
        owner.register_buffer(name, tensor)


def add_module(root: nn.Module, wanted: str, module: nn.Module) -> str:
    """Register a module below `root` under a free name and return that name."""
    path = free_name(root, wanted)
    owner, name = _owner(root, path)
    _clear(owner, name)
    owner.add_module(name, module)
    return path


def read_attribute(graph: Graph, root: nn.Module, path: str) -> Node:
    """A `get_attr` node for the tensor at `path`, its value's type filled in."""
    node = graph.create_node("get_attr", path, (), {})
    tensor = tensor_at(root, node)
    node.meta["val"] = tensor if tensor.device.type == "meta" else tensor.detach()
    note_pass(node)
    return node


def code_generator(graph: Graph) -> CodeGen:
    """The graph's code generator, which holds the user's call signature."""
    return graph._codegen


def new_graph_like(graph_module: GraphModule) -> Graph:
    """An empty graph with the call signature of `graph_module`."""
    graph = Graph(tracer_cls=getattr(graph_module.graph, "_tracer_cls", None))
    graph.set_codegen(code_generator(graph_module.graph))
    return graph


CONTAINERS = (dict, set, list)
"""A tuple, as `dict | set | list` would be put together again for every value."""


def shell_copy(module: nn.Module, memo: dict[int, nn.Module] | None = None) -> nn.Module:
    """A copy of the module tree that shares every tensor with the original.

    Replacing an attribute of the copy leaves the original as it was; writing into a tensor would
    not, and passes never do that. Modules that stand at two places stay shared.
    """
    memo = {} if memo is None else memo
    known = memo.get(id(module))
    if known is not None:
        return known
    copy = module.__class__.__new__(module.__class__)
    memo[id(module)] = copy
    copy.__dict__ = {
        name: value.copy() if isinstance(value, CONTAINERS) else value
        for name, value in module.__dict__.items()
    }
    copy.__dict__["_modules"] = {
        name: None if child is None else shell_copy(child, memo)
        for name, child in module._modules.items()
    }
    return copy


def copy_graph_module(graph_module: GraphModule) -> GraphModule:
    """A copy with its own graph and module tree that shares every tensor; node metadata is kept."""
    root = nn.Module()
    memo: dict[int, nn.Module] = {}
    root._parameters.update(graph_module._parameters)
    root._buffers.update(graph_module._buffers)
    root._non_persistent_buffers_set.update(graph_module._non_persistent_buffers_set)
    for name, child in graph_module._modules.items():
        root._modules[name] = None if child is None else shell_copy(child, memo)
    graph = new_graph_like(graph_module)
    nodes: dict[Node, Node] = {}
    result = graph.graph_copy(graph_module.graph, nodes)
    origin = next(node for node in graph_module.graph.nodes if node.op == "output")
    graph.output(result).meta.update(origin.meta)
    copy = make_graph_module(root, graph, graph_module.__class__.__name__)
    copy.training = graph_module.training
    copy.meta.update({k: v for k, v in graph_module.meta.items() if k != "fxquant"})
    copy_state(graph_module, copy)
    return copy


def make_graph_module(root: nn.Module, graph: Graph, name: str = "GraphModule") -> GraphModule:
    """A GraphModule over `graph` that keeps *all* of root's tensors and modules.

    `torch.fx` copies only what the graph reads; a checkpoint of the user's model must keep loading,
    so nothing is dropped here.
    """
    graph_module = empty_stage(name)
    graph_module._parameters.update(root._parameters)
    graph_module._buffers.update(root._buffers)
    graph_module._non_persistent_buffers_set.update(root._non_persistent_buffers_set)
    graph_module._modules.update(root._modules)
    graph_module.training = root.training
    graph_module.graph = graph
    return graph_module


def prune_attributes(graph_module: GraphModule) -> None:
    """Drop parameters, buffers and modules that the graph no longer reads."""
    used = {str(n.target) for n in graph_module.graph.nodes if n.op in {"get_attr", "call_module"}}
    _prune(graph_module, "", used)


def _prune(module: nn.Module, prefix: str, used: set[str]) -> None:
    tables: tuple[Mapping[str, Any], ...] = (module._parameters, module._buffers)
    for table in tables:
        for name in [name for name in table if prefix + name not in used]:
            delattr(module, name)
    for name, child in list(module._modules.items()):
        path = prefix + name
        if child is None or path in used:
            continue
        if any(target.startswith(path + ".") for target in used):
            _prune(child, path + ".", used)
        else:
            delattr(module, name)
