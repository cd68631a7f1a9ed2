"""What passes added to a graph, moved to the module that uses it.

    quantizers.layer1_0_relu, called in layer1.0   ->  layer1.0.relu_fq
    _constant_0, read in blocks.3.attn             ->  blocks.3.attn.constant_0
    conv1_weight_scale, of layer1.0.conv1.weight   ->  layer1.0.conv1.weight_scale

So the classes of the file hold what their `forward` needs. What several modules use is one object
at several places. What the user's model holds itself is never moved; what is left of it in the core
dialect and nothing reads any more goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.fx import GraphModule, Node

from fxquant.backends.source.regions import scope_of
from fxquant.ir.aten import aten
from fxquant.ir.edit import copy_graph_module, free_name, get_attribute, prune_attributes
from fxquant.ir.origin import Origin
from fxquant.ir.state import state_of

OWN_PACKAGE = "fxquant."
PER_CHANNEL = aten.fake_quantize_per_channel_affine.default
GRID = ("scale", "zero_point")


def relocate(graph_module: GraphModule) -> GraphModule:
    """A copy of a graph whose added modules and tensors stand where they are used."""
    origin = state_of(graph_module).origin
    if not isinstance(origin, Origin) or not origin.calls:
        return graph_module
    copy = copy_graph_module(graph_module)
    if "functional" in state_of(graph_module).properties:
        _erase_unread(copy)
        prune_attributes(copy)
    places: dict[tuple[str, str], str] = {}
    moved: set[str] = set()
    for node, scope in _uses(copy, origin):
        target = str(node.target)
        here = target.startswith(f"{scope}.") if scope else "." not in target
        if here or not _is_added(copy, node, origin):
            continue
        key = (target, scope)
        if key not in places:
            places[key] = _move(copy, target, scope, node)
            moved.add(target)
        node.target = places[key]
    staying = {str(node.target) for node in copy.graph.nodes}
    for target in sorted(moved - staying):
        _drop(copy, target)
    copy.recompile()
    return copy


def _erase_unread(root: GraphModule) -> None:
    for node in reversed(root.graph.find_nodes(op="get_attr")):
        if not node.users:
            root.graph.erase_node(node)


def _uses(root: GraphModule, origin: Origin) -> Iterator[tuple[Node, str]]:
    """Nodes that name a module or a tensor, each with the module in whose call it is used."""
    for node in list(root.graph.nodes):
        if node.op == "call_module":
            yield node, scope_of(node, origin.calls)
        elif node.op == "get_attr":
            yield from _split(root, node, origin)


def _split(root: GraphModule, node: Node, origin: Origin) -> Iterator[tuple[Node, str]]:
    """A read of a tensor for each module that uses it."""
    readers: dict[str, list[Node]] = {}
    for user in node.users:
        readers.setdefault(scope_of(user, origin.calls), []).append(user)
    for number, (scope, users) in enumerate(readers.items()):
        read = node
        if number:
            with root.graph.inserting_after(node):
                read = root.graph.create_node("get_attr", node.target, name=node.name)
            read.meta.update(node.meta)
            for user in users:
                user.replace_input_with(node, read)
        yield read, scope


def _is_added(root: GraphModule, node: Node, origin: Origin) -> bool:
    """Whether a pass or the trace made what a node names, rather than the user."""
    target = str(node.target)
    if node.op == "call_module":
        return type(get_attribute(root, target)).__module__.startswith(OWN_PACKAGE)
    return "." not in target and target not in origin.tensors


def _move(root: GraphModule, target: str, scope: str, node: Node) -> str:
    value = get_attribute(root, target)
    name = node.name if node.op == "call_module" else target
    prefix = scope.replace(".", "_").lower() + "_" if scope else ""
    stem = name[len(prefix) :] if name.lower().startswith(prefix) else name
    stem = stem.strip("_")
    stem = stem if stem.isidentifier() else f"layer{stem}"
    wanted = _beside_weight(node, scope) or (f"{scope}.{stem}" if scope else stem)
    place = free_name(root, wanted)
    parent, _, last = place.rpartition(".")
    owner = get_attribute(root, parent) if parent else root
    if isinstance(value, nn.Module):
        owner.add_module(last, value)
    elif isinstance(value, nn.Parameter):
        owner.register_parameter(last, value)
    else:
        owner.register_buffer(last, value, target not in root._non_persistent_buffers_set)
    return place


def _beside_weight(node: Node, scope: str) -> str | None:
    """Where the grid of a weight stands: beside the weight, in the layer that is left of it."""
    user = next(iter(node.users), None)
    if node.op != "get_attr" or user is None or user.target is not PER_CHANNEL:
        return None
    weight, *grid = user.args[:3]
    if not isinstance(weight, Node) or weight.op != "get_attr" or node not in grid:
        return None
    target = str(weight.target)
    inside = "." in target and target.startswith(f"{scope}." if scope else "")
    return f"{target}_{GRID[grid.index(node)]}" if inside else None


def _drop(root: GraphModule, target: str) -> None:
    parent, _, name = target.rpartition(".")
    owner = get_attribute(root, parent) if parent else root
    delattr(owner, name)
    if parent and not owner._modules and not owner._parameters and not owner._buffers:
        _drop(root, parent)
