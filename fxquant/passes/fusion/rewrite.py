"""Put a replacement into a graph: nodes, constants, source lines, types and provenance.

    %relu = relu6(%add); %mul = mul(%x, %relu) …   ->   %hardswish = hardswish(%x)

What the replacement computes from stored tensors alone is computed at once, as new weights. Those
made from a trained parameter are parameters again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from fxquant.ir.aten import is_aten, overload
from fxquant.ir.edit import (
    add_buffer,
    add_parameter,
    inherit,
    is_attribute,
    read_attribute,
    tensor_at,
)
from fxquant.passes.fusion.group import KEY, FusedGroup, group_of
from fxquant.passes.fusion.pattern import Pattern
from fxquant.passes.fusion.search import Place


def apply(place: Place, order: dict[Node, float]) -> None:
    """Rewrite one place; `order` loses the nodes that go."""
    if place.replacement is None:
        _mark(place)
        return
    match, root = place.match, place.match.root
    inputs = [value for value in match.values.values() if isinstance(value, Node)]
    first = min(match.outputs, key=order.__getitem__)
    if len(match.outputs) > 1:
        _hoist(first, inputs, order)
    with root.graph.inserting_before(first):
        before = len(root.graph.nodes)
        new = _copy(place, place.replacement, match.outputs[0])
    made = len(root.graph.nodes) - before
    _number(first, made, order)
    for old, fresh in zip(match.outputs, new, strict=True):
        _take_over(old, fresh)
    _sweep(first, made, order)
    for node in reversed(match.nodes):
        if not node.users:
            root.graph.erase_node(node)
        order.pop(node, None)
    for value in inputs:
        if value.op == "get_attr" and not value.users:
            root.graph.erase_node(value)
            order.pop(value, None)


def _number(first: Node, count: int, order: dict[Node, float]) -> None:
    """Give the new nodes right before `first` their places in the order."""
    node = first
    for step in range(count):
        node = node.prev
        order[node] = order[first] - (step + 1) / (count + 1)


def _sweep(first: Node, count: int, order: dict[Node, float]) -> None:
    """Erase new reads that only led to constants."""
    nodes, node = [], first
    for _ in range(count):
        node = node.prev
        nodes.append(node)
    for node in nodes:
        if node.op == "get_attr" and not node.users:
            node.graph.erase_node(node)
            order.pop(node, None)


def _mark(place: Place) -> None:
    end = place.match.outputs[0]
    for node in place.match.nodes:
        if node is not end:
            node.meta[KEY] = FusedGroup(place.match.name, end.name)


def _take_over(old: Node, new: Node) -> None:
    inherit(new, old, value=False)
    if isinstance(old.meta.get("val"), Tensor):
        new.meta["val"] = old.meta["val"]
    group = group_of(old)
    if group is not None:
        new.meta[KEY] = group
    old.replace_all_uses_with(new)


def _hoist(first: Node, inputs: Iterable[Node], order: dict[Node, float]) -> None:
    """Move what the replacement reads before the first output; nothing of it depends on one."""
    late: set[Node] = set()
    waiting = list(inputs)
    while waiting:
        node = waiting.pop()
        if order[node] > order[first] and node not in late:
            late.add(node)
            waiting.extend(node.all_input_nodes)
    for node in sorted(late, key=order.__getitem__):
        first.prepend(node)


def _copy(place: Place, pattern: Pattern, origin: Node) -> list[Node]:
    """The replacement's nodes, in front of the insert point; its outputs."""
    root = place.match.root
    known: dict[Node, Node] = {
        node: place.match.values[name] for name, node in pattern.inputs.items()
    }
    for node in pattern.root.graph.nodes:
        if node.op == "get_attr":
            tensor = tensor_at(pattern.root, node)
            path = add_buffer(root, f"_fused.{place.match.name}", tensor)
            known[node] = inherit(read_attribute(root.graph, root, path), origin, value=False)
        elif node in pattern.nodes:
            known[node] = _copy_node(root, node, known, origin)
    return [known[node] for node in pattern.outputs]


def _copy_node(root: GraphModule, node: Node, known: dict[Node, Node], origin: Node) -> Node:
    args = map_arg(node.args, known.__getitem__)
    kwargs = map_arg(node.kwargs, known.__getitem__)
    operands = [known[operand] for operand in node.all_input_nodes]
    stored = all(is_attribute(operand) for operand in operands)
    if operands and stored and is_aten(node) and isinstance(node.meta["val"], Tensor):
        return _compute(root, node, (args, kwargs), operands, origin)
    name = node.name.rpartition(".")[2]
    made = root.graph.create_node("call_function", node.target, args, kwargs, name)
    made.meta["val"] = _value_like(node.meta["val"], origin.meta.get("val"))
    return inherit(made, origin, value=False)


def _compute(
    root: GraphModule, node: Node, call: tuple[Any, Any], operands: list[Node], origin: Node
) -> Node:
    """The result of an operator on stored tensors, stored."""
    tensors = [tensor_at(root, operand) for operand in operands]

    def load(operand: Node) -> Tensor:
        return tensor_at(root, operand).detach()

    with torch.no_grad():
        value = overload(node)(*map_arg(call[0], load), **map_arg(call[1], load)).clone()
    trained = any(isinstance(tensor, nn.Parameter) for tensor in tensors)
    store = add_parameter if trained and value.is_floating_point() else add_buffer
    owner = str(operands[0].target)
    read = read_attribute(root.graph, root, store(root, owner, value))
    return inherit(read, origin, value=False)


def _value_like(value: Any, example: Any) -> Any:
    """A fake value of the same shape and dtype, in the fake mode of the graph that it goes to."""
    if isinstance(value, list | tuple):
        return tuple(_value_like(item, example) for item in value)
    if isinstance(example, list | tuple):
        return _value_like(value, example[0])
    if not isinstance(value, Tensor):
        return value
    shape, dtype = tuple(int(size) for size in value.shape), value.dtype
    if isinstance(example, FakeTensor):
        with example.fake_mode:
            return torch.empty(shape, dtype=dtype, device=example.device)
    return torch.empty(shape, dtype=dtype, device="meta")
