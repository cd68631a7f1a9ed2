"""Mark by modules where integers begin and end: the stubs that eager quantization asks a user for.

    %conv = Conv2d @conv(%x)              %quant = quant @quant(%x)
    %erf = erf(%conv)                ->   %conv = Conv2d @conv(%quant)
    return %erf                           %dequant = dequant @dequant(%conv)
                                          %erf = erf(%dequant)
                                          return %erf

What can compute in integers is what `annotate` says of the same model for the graph's target. The
stubs of one `forward` are numbered; one that begins a region stands where the value is made, one
that ends it where the value is read. They compute nothing. Stubs of the user's stand, and are all
there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.fx import GraphModule, Node

from fxquant.backends.registry import get_backend
from fxquant.backends.source.passes.module_table import FLOAT_FUNCTIONAL, called
from fxquant.backends.source.regions import call_number
from fxquant.errors import PipelineError
from fxquant.ir.edit import copy_graph_module, get_attribute, inherit, is_attribute
from fxquant.ir.origin import ModuleCall, Origin
from fxquant.ir.source import source_of
from fxquant.ir.state import state_of
from fxquant.passes.annotate import Annotate
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.free_precision import MOVES_FLOAT
from fxquant.passes.functional.stubs import stub_at
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import register_pass
from fxquant.quant.constraints import Annotation, annotation_of
from fxquant.quant.stubs import DeQuantStub, QuantStub


@register_pass
@dataclass(frozen=True)
class ClassicStubs(Pass):
    """%y = Conv2d @conv(%x)  ->  %quant = quant @quant(%x); %y = Conv2d @conv(%quant)

    Attributes:
        target: the backend whose constraints decide, where the graph has none.
    """

    name: ClassVar[str] = "classic-stubs"
    requires: ClassVar[frozenset[str]] = frozenset({"traced"})
    establishes: ClassVar[frozenset[str]] = frozenset({"classic"})
    semantics: ClassVar[Semantics] = EXACT

    target: str = "tflite"

    def run(self, graph_module: GraphModule) -> PassResult:
        if "functional" in state_of(graph_module).properties:
            raise PipelineError(
                "stubs go into a graph as it was traced, and this one is in the core dialect",
                fix="give the graph of fxquant.trace, before prepare or convert",
            )
        stubs = list(_stubs(graph_module))
        inside = _inside(graph_module, decisions(graph_module, self.target))
        if not stubs:
            _Inserter(graph_module, inside).run()
        return PassResult(graph_module, not stubs)


def _stubs(graph_module: GraphModule) -> Iterator[Node]:
    """The calls of stubs."""
    nodes = graph_module.graph.find_nodes(op="call_module")
    return (node for node in nodes if stub_at(graph_module, node) is not None)


def decisions(graph_module: GraphModule, target: str) -> dict[str, Annotation]:
    """For each value by name what the target computes it in."""
    copy = copy_graph_module(graph_module)
    for node in list(_stubs(copy)):  # whatever the user's stubs say
        node.replace_all_uses_with(node.all_input_nodes[0])
        copy.graph.erase_node(node)
    state = state_of(copy)
    if state.constraints is None:
        state.target, state.constraints = target, get_backend(target).constraints()
    core = Pipeline((*Pipeline.default("float"), Annotate()))(copy)
    found = {node.name: annotation_of(node) for node in core.graph.nodes}
    return {name: each for name, each in found.items() if each is not None}


def _inside(graph_module: GraphModule, known: dict[str, Annotation]) -> dict[Node, bool]:
    """Whether integers, for every node of this graph; what passes merged stays with what it reads.

    What stays float of its own accord is noted, so that the file says why.
    """
    inside: dict[Node, bool] = {}
    for node in graph_module.graph.nodes:
        if not node.op.startswith("call"):
            continue
        before = [inside[each] for each in node.all_input_nodes if each in inside]
        annotation = known.get(node.name)
        if annotation is None:
            inside[node] = before[0] if before else False
            continue
        inside[node] = annotation.quantized
        if not annotation.quantized and annotation.reason != MOVES_FLOAT:
            node.meta["note"] = str(annotation)
    return inside


class _Inserter:
    def __init__(self, root: GraphModule, inside: dict[Node, bool]) -> None:
        self.root, self.inside = root, inside
        origin = state_of(root).origin
        self.calls = origin.calls if isinstance(origin, Origin) else []
        self.calls = self.calls or [ModuleCall("")]
        self.counts: dict[tuple[int, str], int] = {}
        self.order = {node: index for index, node in enumerate(root.graph.nodes)}

    def run(self) -> None:
        for node in list(self.root.graph.nodes):
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                continue
            begins = self.inside.get(node, False)
            if not begins:
                self._begin(node)
            else:
                self._end(node)

    def _begin(self, node: Node) -> None:
        """A float value that integers are computed from."""
        users = [user for user in node.users if self.inside.get(user, False)]
        if is_attribute(node):
            users = [user for user in users if called(user) in FLOAT_FUNCTIONAL]  # not as weights
        if not users:
            return
        near = users[0] if node.op in {"placeholder", "get_attr"} else node
        self._insert(node, users, near, QuantStub(), after=node if near is node else None)

    def _end(self, node: Node) -> None:
        """A value in integers that is read as float, by each `forward` that does."""
        groups: dict[int, list[Node]] = {}
        for user in node.users:
            if not self.inside.get(user, False):
                number = 0 if user.op == "output" else call_number(user, self.calls)
                groups.setdefault(number, []).append(user)
        for users in groups.values():
            self._insert(node, users, users[0], DeQuantStub(), after=None)

    def _insert(
        self, value: Node, users: list[Node], near: Node, stub: nn.Module, after: Node | None
    ) -> None:
        """One stub for some users of a value, in the `forward` that `near` stands in."""
        whole = near.op == "output" or value.op == "placeholder"
        number = 0 if whole else call_number(near, self.calls)
        scope = self.calls[number].path
        stem = "quant" if isinstance(stub, QuantStub) else "dequant"
        count = self.counts.get((number, stem), 0)
        self.counts[number, stem] = count + 1
        name = f"{stem}_{count}" if count else stem
        owner = get_attribute(self.root, scope) if scope else self.root
        if not isinstance(getattr(owner, name, None), type(stub)):
            owner.add_module(name, stub)
        path = f"{scope}.{name}" if scope else name
        graph = self.root.graph
        with self._place(value, users, after):
            node = graph.create_node("call_module", path, (value,), {}, name=f"{value.name}_{stem}")
        node.meta["val"] = value.meta["val"]
        inherit(node, near if near.op != "output" else value)
        source = source_of(node)
        if whole and source is not None:
            node.meta["source"] = replace(source, module="", call=0)
        for user in users:
            user.replace_input_with(value, node)

    def _place(self, value: Node, users: list[Node], after: Node | None) -> Any:
        """Behind the value; in front of the first that reads it; or first of all."""
        graph = self.root.graph
        if after is not None:
            return graph.inserting_after(after)
        if value.op == "placeholder":
            return graph.inserting_before(self._first_after_inputs())
        return graph.inserting_before(min(users, key=self.order.__getitem__))

    def _first_after_inputs(self) -> Node:
        nodes = self.root.graph.nodes
        first: Node = next(n for n in nodes if n.op not in {"placeholder", "get_attr"})
        return first
