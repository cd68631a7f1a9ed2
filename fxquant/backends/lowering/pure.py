"""In-place operators in a decomposition, written as operators that make a new value.

    %s = split(%g); %a = getitem(%s, 0); %b = sigmoid_(%a); mul(%a, …)
      ->   %b = sigmoid(%a); mul(%b, …)

Allowed where nothing else sees the memory afterwards: neither the tensor that was written into
under another name, nor one that it is a view of.
"""

from __future__ import annotations

import operator

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node

VIEW_NAMES = "alias detach view reshape permute transpose t slice select squeeze unsqueeze expand"
PART_NAMES = "split split_with_sizes chunk unbind unsafe_split unsafe_chunk"
VIEWS = frozenset(VIEW_NAMES.split())
PARTS = frozenset(PART_NAMES.split())


def writes(node: Node) -> bool:
    """Whether a node writes into an operand."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def without_writes(graph: Graph) -> bool:
    """Replace every in-place operator; whether that was possible."""
    return all(_replace(graph, node) for node in list(graph.nodes) if writes(node))


def _replace(graph: Graph, node: Node) -> bool:
    target = _functional(node)
    written = node.args[0] if node.args else None
    if target is None or not isinstance(written, Node) or _is_seen(graph, written, node):
        return False
    with graph.inserting_before(node):
        new = graph.call_function(target, node.args, node.kwargs)
    new.meta.update(node.meta)
    later = _after(graph, new)
    written.replace_all_uses_with(new, delete_user_cb=lambda user: user in later)
    node.replace_all_uses_with(new)
    graph.erase_node(node)
    return True


def _functional(node: Node) -> OpOverload | None:
    assert isinstance(node.target, OpOverload)
    namespace, _, name = node.target._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    found = getattr(packet, node.target._overloadname, None) if name.endswith("_") else None
    return found if isinstance(found, OpOverload) else None


def _after(graph: Graph, node: Node) -> set[Node]:
    order = list(graph.nodes)
    return set(order[order.index(node) + 1 :])


def _is_seen(graph: Graph, written: Node, node: Node) -> bool:
    """Whether an alias of the written tensor is read later."""
    later = _after(graph, node)
    aliases = _views_of(written)
    while _name(written) in VIEWS or written.target is operator.getitem:
        source = written.args[0]
        if not isinstance(source, Node):
            return True
        if written.target is operator.getitem:
            if _name(source) not in PARTS:
                break  # one of several results of its own
            inner = source.args[0]
            assert isinstance(inner, Node)
            source = inner
        written = source
        aliases.add(written)
    if written.op in {"placeholder", "get_attr"}:
        return True
    return any(user in later for alias in aliases for user in alias.users)


def _views_of(node: Node) -> set[Node]:
    return {user for user in node.users if _name(user) in VIEWS | PARTS}


def _name(node: Node) -> str:
    target = node.target
    return target._schema.name.partition("::")[2] if isinstance(target, OpOverload) else ""
