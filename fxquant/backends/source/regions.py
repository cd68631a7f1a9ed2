"""A flat graph as the calls of modules that it came from: a tree of regions.

    %conv1, %layer1_0_conv1, %layer1_0_relu, %fc
      ->  root [%conv1, layer1 [layer1.0 [%layer1_0_conv1, %layer1_0_relu]], %fc]

A region is one call of one module. It stands where its nodes are neighbors and need only modules
below that module; otherwise it is dissolved: its nodes are written where it was called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch.fx import Node

from fxquant.backends.source.places import Places
from fxquant.ir.origin import ModuleCall
from fxquant.ir.source import source_of

Item: TypeAlias = "Node | Region"


@dataclass(eq=False)
class Region:
    """One call of a module.

    Attributes:
        path: of the module.
        call: the number of the call.
        items: its nodes and the calls inside it, in order.
        inputs: what it takes, in order of first use.
        outputs: what is used outside.
        names: the user's names of inputs, by node.
    """

    path: str
    call: int
    items: list[Item]
    inputs: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def nodes(self) -> Iterator[Node]:
        """All nodes inside, in order."""
        for item in self.items:
            if isinstance(item, Region):
                yield from item.nodes()
            else:
                yield item

    def regions(self) -> Iterator[Region]:
        """Itself and all regions inside, inner ones first."""
        for item in self.items:
            if isinstance(item, Region):
                yield from item.regions()
        yield self


def is_step(node: Node) -> bool:
    """Whether a node is a line of code; the others are names of things that are there."""
    return node.op.startswith("call")


def call_number(node: Node, calls: Sequence[ModuleCall]) -> int:
    """In which call a node stands; what a pass made of nothing stays with what it reads."""
    seen: set[Node] = set()
    while node not in seen:
        seen.add(node)
        source = source_of(node)
        if source is not None and source.call is not None and source.call < len(calls):
            return source.call
        node = next((each for each in node.all_input_nodes if is_step(each)), node)
    return 0


def scope_of(node: Node, calls: Sequence[ModuleCall]) -> str:
    """The path of the module in whose call a node stands."""
    return calls[call_number(node, calls)].path


def grow(nodes: Sequence[Node], calls: Sequence[ModuleCall], places: Places) -> Region:
    """The tree of regions of a graph."""
    steps = [node for node in nodes if is_step(node)]
    chains = _chains(steps, calls)
    root = Region("", 0, _items(steps, chains, 0, calls))
    root.outputs = list(dict.fromkeys(_results(nodes)))
    _connect(root, places)
    return root


def _results(nodes: Sequence[Node]) -> list[Node]:
    return [each for node in nodes if node.op == "output" for each in node.all_input_nodes]


def _chains(steps: Iterable[Node], calls: Sequence[ModuleCall]) -> dict[Node, tuple[int, ...]]:
    """For each node the calls that it stands in, outermost first, without the model's own."""
    known: dict[int, tuple[int, ...]] = {}

    def chain(number: int) -> tuple[int, ...]:
        if number not in known:
            parent = calls[number].parent
            known[number] = () if parent is None else (*chain(parent), number)
        return known[number]

    return {node: chain(call_number(node, calls)) for node in steps}


def _items(
    steps: Sequence[Node],
    chains: dict[Node, tuple[int, ...]],
    depth: int,
    calls: Sequence[ModuleCall],
) -> list[Item]:
    """Neighbors of one inner call become a region, unless that call has other nodes elsewhere."""
    runs: list[tuple[int | None, list[Node]]] = []
    for node in steps:
        inner = chains[node][depth] if len(chains[node]) > depth else None
        if inner is not None and runs and runs[-1][0] == inner:
            runs[-1][1].append(node)
        else:
            runs.append((inner, [node]))
    numbers = [inner for inner, _ in runs]
    items: list[Item] = []
    for inner, run in runs:
        if inner is None:
            items.extend(run)
            continue
        inside = _items(run, chains, depth + 1, calls)
        if numbers.count(inner) == 1:
            items.append(Region(calls[inner].path, inner, inside, names=_named(calls[inner])))
        else:
            items.extend(inside)
    return items


def _named(call: ModuleCall) -> dict[str, str]:
    """The parameter of each value; none for a value that is several."""
    counts = Counter(node for _, node in call.arguments)
    return {node: parameter for parameter, node in call.arguments if counts[node] == 1}


def _connect(region: Region, places: Places) -> None:
    """Inputs and outputs of all regions, inner ones first; what cannot stand is dissolved."""
    items: list[Item] = []
    for item in region.items:
        if isinstance(item, Region):
            _connect(item, places)
            items.extend(item.items if _must_dissolve(item, places) else [item])
        else:
            items.append(item)
    region.items = items
    if region.path:
        inside = set(region.nodes())
        region.outputs = [n for n in region.nodes() if any(u not in inside for u in n.users)]
    region.inputs = list(dict.fromkeys(_needed(region, places)))


def _needed(region: Region, places: Places) -> Iterator[Node]:
    inside = set(region.nodes())
    for item in region.items:
        for node in item.inputs if isinstance(item, Region) else item.all_input_nodes:
            reachable = node.op == "get_attr" and places.below(region.path, str(node.target))
            if node not in inside and not reachable:
                yield node


def _must_dissolve(region: Region, places: Places) -> bool:
    """Whether it calls modules that its own module does not hold, or does nothing."""
    modules = (str(n.target) for n in region.nodes() if n.op == "call_module")
    held = all(places.below(region.path, target) is not None for target in modules)
    return not held or not region.items or region.path not in places.kinds


def dissolve(region: Region, paths: set[str], places: Places) -> None:
    """Take the regions of some modules apart, here and inside."""
    items: list[Item] = []
    for item in region.items:
        if isinstance(item, Region):
            dissolve(item, paths, places)
            items.extend(item.items if item.path in paths else [item])
        else:
            items.append(item)
    region.items = items
    region.inputs = list(dict.fromkeys(_needed(region, places)))
