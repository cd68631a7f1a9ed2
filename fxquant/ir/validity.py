"""Validity as a table: what must be true of every node, by the properties that hold of the graph.

A row is a name, the property under which it applies (None: always) and a function that returns
what is wrong with a node, or None. All problems are reported together.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fxquant.errors import InvalidGraph, Problem
from fxquant.ir.aten import is_aten, named_arguments, overload, packet_name
from fxquant.ir.edit import get_attribute
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of

# What follows train and eval mode stays a module; observers and stubs are not torch.nn's.
CORE_MODULES = (_BatchNorm, _DropoutNd)

Check = Callable[[GraphModule, Node], str | None]


class Row(NamedTuple):
    """One rule: its name, when it applies, and the check itself."""

    name: str
    when: str | None
    check: Check


def _target_exists(root: GraphModule, node: Node) -> str | None:
    if node.op in {"get_attr", "call_module"}:
        get_attribute(root, str(node.target))
    return None


def _no_method(root: GraphModule, node: Node) -> str | None:
    return "a method call stands in the core dialect" if node.op == "call_method" else None


def _no_in_place(root: GraphModule, node: Node) -> str | None:
    if is_aten(node) and overload(node)._schema.is_mutable:
        return f"{packet_name(node.target)} writes into its argument"
    return None


def _operator_only(root: GraphModule, node: Node) -> str | None:
    if node.op != "call_function" or is_aten(node):
        return None
    source = node.args[0] if node.args else None
    several = isinstance(source, Node) and isinstance(source.meta.get("val"), tuple | list)
    if node.target is operator.getitem and several:
        return None
    return f"{packet_name(node.target)} is not an ATen operator"


def _module_of_core(root: GraphModule, node: Node) -> str | None:
    if node.op != "call_module":
        return None
    module = get_attribute(root, str(node.target))
    if isinstance(module, CORE_MODULES) or not type(module).__module__.startswith("torch.nn."):
        return None
    return f"a {type(module).__name__} stands in the core dialect as a module"


def _has_value(root: GraphModule, node: Node) -> str | None:
    missing = node.op in {"call_function", "call_module", "placeholder"} and "val" not in node.meta
    return "the node has no shape and dtype (meta['val'])" if missing else None


def _grid(root: GraphModule, node: Node) -> str | None:
    if packet_name(node.target) != "fake_quantize_per_tensor_affine":
        return None
    named: dict[str, Any] = named_arguments(node)
    scale, zero_point = named["scale"], named["zero_point"]
    if not (isinstance(scale, float) and math.isfinite(scale) and scale > 0):
        return f"the scale {scale} is not a positive number"
    if not named["quant_min"] <= zero_point <= named["quant_max"]:
        return f"the zero point {zero_point} is outside the integer range"
    return None


def _channel_grid(root: GraphModule, node: Node) -> str | None:
    if packet_name(node.target) != "fake_quantize_per_channel_affine":
        return None
    scale_node = named_arguments(node)["scale"]
    if not isinstance(scale_node, Node) or scale_node.op != "get_attr":
        return "the scales are not a constant"
    scale = get_attribute(root, str(scale_node.target))
    return None if bool(torch.all(scale > 0)) else "a scale is not positive"


TABLE: list[Row] = [
    Row("target-exists", None, _target_exists),
    Row("no-method", "functional", _no_method),
    Row("no-in-place", "functional", _no_in_place),
    Row("operators-only", "functional", _operator_only),
    Row("core-modules", "functional", _module_of_core),
    Row("has-value", "shapes", _has_value),
    Row("positive-scale", None, _grid),
    Row("positive-scales", None, _channel_grid),
]


def problems(graph_module: GraphModule, table: list[Row] | None = None) -> list[Problem]:
    """Everything that breaks a rule."""
    holds = state_of(graph_module).properties
    rows = [row for row in table or TABLE if row.when is None or row.when in holds]
    found: list[Problem] = []
    for node in graph_module.graph.nodes:
        for row in rows:
            what = _checked(row, graph_module, node)
            if what is not None:
                where = format_node(node, None)
                found.append(Problem(f"{row.name}: {what}", where, source_text(node)))
    return found


def _checked(row: Row, graph_module: GraphModule, node: Node) -> str | None:
    try:
        return row.check(graph_module, node)
    except InvalidGraph as error:
        return str(error)


def check_graph(graph_module: GraphModule) -> None:
    """Check the structure (`Graph.lint`) and the validity table.

    Raises:
        InvalidGraph: rules are broken; all of them are listed.
    """
    found = problems(graph_module)
    if found:
        raise InvalidGraph("the graph is not valid", problems=found)
    graph_module.graph.lint()
