"""The text form of a graph: the fewest words that show every decision.

    graph(%x: f32[1,3,8,8]):
      %conv = conv2d(%x, @conv.weight, @conv.bias) {padding=[1,1]} : f32[1,4,8,8]
      %relu = relu(%conv) : f32[1,4,8,8]
      return (%relu)

Values are `%name`, parameters and constants `@path`, options stand in braces without their
defaults, and the type of the result stands last. The same text comes from the same graph on every
machine, so tests and diffs compare it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from fxquant.ir.aten import argument_names, defaults, is_aten, overload, packet_name
from fxquant.ir.edit import OUTSIDE, get_attribute
from fxquant.ir.types import TensorType, dtype_name

NOTES = ("annotation", OUTSIDE, "group")
"""What a node's `meta` may hold that a pass decided; the first that is there prints."""


def format_graph(graph_module: GraphModule) -> str:
    """A graph as text, one node a line."""
    nodes = list(graph_module.graph.nodes)
    inputs = ", ".join(format_value(node) for node in nodes if node.op == "placeholder")
    body = [format_node(node, graph_module) for node in nodes if _has_line(node)]
    return "\n".join([f"graph({inputs}):", *("  " + line for line in body)]) + "\n"


def _has_line(node: Node) -> bool:
    return node.op not in {"placeholder", "get_attr"}


def format_value(node: Node) -> str:
    """A value with its type: `%x: f32[1,3,8,8]`."""
    kind = format_type(node)
    return f"%{node.name}: {kind}" if kind else f"%{node.name}"


def format_node(node: Node, root: GraphModule | None = None) -> str:
    """One node as a line of text."""
    if node.op == "output":
        return f"return {format_argument(node.args[0])}"
    if node.op == "get_attr":
        return f"%{node.name} = @{node.target}"
    operands, options = _split(node)
    call = f"%{node.name} = {_target(node, root)}({', '.join(operands)})"
    if options:
        call += " {" + ", ".join(f"{key}={value}" for key, value in options.items()) + "}"
    kind = format_type(node)
    note = next((node.meta[key] for key in NOTES if key in node.meta), None)
    return call + (f" : {kind}" if kind else "") + (f"  !{note}" if note is not None else "")


def _target(node: Node, root: GraphModule | None) -> str:
    if node.op == "call_method":
        return f".{node.target}"
    if node.op == "call_module":
        module = None if root is None else get_attribute(root, str(node.target))
        label = "" if module is None else f"{_module_label(module)} "
        return f"{label}@{node.target}"
    return packet_name(node.target)


def _module_label(module: torch.nn.Module) -> str:
    label = getattr(module, "ir_label", None)
    return label() if callable(label) else type(module).__name__


def _split(node: Node) -> tuple[list[str], dict[str, str]]:
    """Operands (values) and options (everything else that differs from its default)."""
    if not is_aten(node):
        return _split_plain(node)
    names = argument_names(overload(node))
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    usual = defaults(overload(node))
    operands = [format_argument(value) for value in given.values() if _has_node(value)]
    options = {
        name: format_argument(value)
        for name, value in given.items()
        if not _has_node(value) and not (name in usual and _same(usual[name], value))
    }
    return operands, options


def _split_plain(node: Node) -> tuple[list[str], dict[str, str]]:
    operands = [format_argument(value) for value in node.args]
    options: dict[str, str] = {}
    usual: Mapping[str, Any] = getattr(node.target, "option_defaults", {})
    for name, value in node.kwargs.items():
        if name == "out" or (name in usual and _same(usual[name], value)):
            continue
        options[name] = format_argument(value)
    return operands, options


def _same(first: object, second: object) -> bool:
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return list(first) == list(second)
    return type(first) is type(second) and first == second


def _has_node(value: Any) -> bool:
    found: list[Node] = []
    map_arg(value, lambda node: found.append(node))
    return bool(found)


def format_argument(value: Any) -> str:
    """An argument as text: `%x`, `@weight`, `[1,1]`, `0.5`, `"floor"`."""
    if isinstance(value, Node):
        return f"@{value.target}" if value.op == "get_attr" else f"%{value.name}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{type(value).__name__}({','.join(format_argument(item) for item in value)})"
    if isinstance(value, list | tuple):
        left, right = "()" if isinstance(value, tuple) else "[]"
        return left + ",".join(format_argument(item) for item in value) + right
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{format_argument(v)}" for k, v in value.items()) + "}"
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return f"{value:.6g}"
    if callable(value):
        return packet_name(value)
    return str(value)


def format_type(node: Node) -> str:
    """The type of a node's value as text; empty where it is not known."""
    kind = node.meta.get("type")
    if kind is not None:
        return _join(kind)
    return _join(node.meta.get("val"))


def _join(kind: Any) -> str:
    if kind is None:
        return ""
    if isinstance(kind, torch.Tensor):
        return str(TensorType.of(kind))
    if isinstance(kind, list | tuple):
        return "(" + ", ".join(_join(item) for item in kind) + ")"
    return str(kind)
