"""Give every operation that has a range of its own a module, which has a place for its quantizer.

    %relu = relu(%conv)                       %relu = ReLU @relu_0(%conv)
    %add = .add(%relu, %x)               ->   %add = float_functional @add_0("add", %relu, %x)
    %act = ReLU @act(%add)                    %act = ReLU @act(%add)
    %act_1 = ReLU @act(%conv2)                %act_1 = ReLU @act_1(%conv2)

The modules stand in the module whose `forward` made the operation. A second call of that module
calls the same ones. A write in place becomes a new value where nothing else can see the written
one; elsewhere it stays. What is computed is the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.fx import GraphModule, Node

from fxquant.backends.source.passes.module_table import (
    FLOAT_FUNCTIONAL,
    JOINS,
    ROWS,
    SCALARS,
    called,
)
from fxquant.backends.source.regions import call_number
from fxquant.ir.edit import get_attribute, inherit
from fxquant.ir.origin import ModuleCall, Origin
from fxquant.ir.state import state_of
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass
from fxquant.quant.float_functional import FloatFunctional
from fxquant.quant.stubs import DeQuantStub, QuantStub
from fxquant.tracing.leaves import shallow_copy

# Modules whose result is memory of its own, whatever their input is.
FRESH = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.LayerNorm,
    FloatFunctional,
)


@register_pass
@dataclass(frozen=True)
class FunctionsToModules(Pass):
    """%y = .add(%x, %z)  ->  %y = float_functional @add_0("add", %x, %z)"""

    name: ClassVar[str] = "functions-to-modules"
    requires: ClassVar[frozenset[str]] = frozenset({"traced"})
    establishes: ClassVar[frozenset[str]] = frozenset({"modular"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        rewriter = _Rewriter(graph_module)
        for node in list(graph_module.graph.nodes):
            rewriter.rewrite(node)
        rewriter.merge()
        rewriter.separate()
        return PassResult(graph_module, True)


class _Rewriter:
    def __init__(self, root: GraphModule) -> None:
        self.root = root
        origin = state_of(root).origin
        self.calls = origin.calls if isinstance(origin, Origin) else []
        self.calls = self.calls or [ModuleCall("")]
        self.counts: dict[tuple[int, str], int] = {}
        self.made: list[tuple[nn.Module, str, nn.Module]] = []
        self.users = {(id(m), name) for m in root.modules() for name in m._modules}

    def rewrite(self, node: Node) -> None:
        """Replace one node, where a module says the same."""
        name = called(node)
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return
        if name in ROWS:
            self._module(node, name)
        elif name in FLOAT_FUNCTIONAL:
            self._functional(node, FLOAT_FUNCTIONAL[name], in_place=name.endswith("_"))

    def _module(self, node: Node, name: str) -> None:
        options = ROWS[name].options(node)
        if options is None or not isinstance(node.args[0], Node):
            return
        path = self._path(node, name.strip("_"), ROWS[name].module(**options))
        if path is not None:
            self._call(node, path, (node.args[0],))

    def _functional(self, node: Node, operation: str, *, in_place: bool) -> None:
        if in_place and not self._unseen(node.args[0], node):
            return
        args = _arguments(node, operation)
        if args is None:
            return
        if operation in SCALARS and not isinstance(args[1], Node):
            operation = f"{operation}_scalar"
        path = self._path(node, operation.removesuffix("_scalar"), FloatFunctional())
        if path is not None:
            self._call(node, path, (operation, *args))

    def _unseen(self, value: Any, reader: Node) -> bool:
        """Whether a value is memory of its own that only `reader` reads."""
        if not isinstance(value, Node) or list(value.users) != [reader]:
            return False
        if value.op != "call_module":
            return False
        module = get_attribute(self.root, str(value.target))
        if getattr(module, "inplace", False) or isinstance(module, QuantStub | DeQuantStub):
            return self._unseen(value.args[0], value)
        return isinstance(module, FRESH) or hasattr(module, "inplace")

    def _path(self, node: Node, stem: str, module: nn.Module) -> str | None:
        """Where the module of an operation stands: one for each place in a `forward`."""
        number = call_number(node, self.calls)
        scope = self.calls[number].path
        owner = get_attribute(self.root, scope) if scope else self.root
        count = self._unused(owner, stem, self.counts.get((number, stem), 0))
        self.counts[number, stem] = count + 1
        name = f"{stem}_{count}"
        known = getattr(owner, name, None)
        if known is None:
            module.training = owner.training
            owner.add_module(name, module)
            self.made.append((owner, name, module))
        elif repr(known) != repr(module):
            return None  # another call of the same module has something else there
        return f"{scope}.{name}" if scope else name

    def _unused(self, owner: nn.Module, stem: str, count: int) -> int:
        """The first number from `count` on whose name is not that of a module of the user's."""
        while (id(owner), f"{stem}_{count}") in self.users:
            count += 1
        return count

    def _call(self, node: Node, path: str, args: tuple[Any, ...]) -> None:
        with self.root.graph.inserting_before(node):
            new = self.root.graph.create_node("call_module", path, args, {}, node.name)
        inherit(new, node)
        if "note" in node.meta:
            new.meta["note"] = node.meta["note"]
        node.replace_all_uses_with(new)
        self.root.graph.erase_node(node)

    def merge(self) -> None:
        """A sum that only a ReLU reads becomes one operation: no target stores what is between."""
        for node in list(self.root.graph.find_nodes(op="call_module")):
            before = node.args[0]
            if type(get_attribute(self.root, str(node.target))) is not nn.ReLU:
                continue
            if isinstance(before, Node) and before.args[0] == "add" and len(before.users) == 1:
                self._call(node, str(before.target), ("add_relu", *before.args[1:]))
                self.root.graph.erase_node(before)
        calls = self.root.graph.find_nodes(op="call_module")
        used = {id(get_attribute(self.root, str(node.target))) for node in calls}
        for owner, name, module in self.made:
            if id(module) not in used:
                delattr(owner, name)

    def separate(self) -> None:
        """A module without tensors that one `forward` calls again is another one there."""
        seen: dict[tuple[int, str], int] = {}
        for node in self.root.graph.find_nodes(op="call_module"):
            target = str(node.target)
            key = (call_number(node, self.calls), target)
            count = seen.get(key, 0)
            seen[key] = count + 1
            module = get_attribute(self.root, target)
            parent, _, name = target.rpartition(".")
            if count and name.isidentifier() and not module.state_dict():
                owner = get_attribute(self.root, parent) if parent else self.root
                count = self._unused(owner, name, count)
                seen[key] = count + 1
                if getattr(owner, f"{name}_{count}", None) is None:
                    owner.add_module(f"{name}_{count}", shallow_copy(module))
                if repr(getattr(owner, f"{name}_{count}")) == repr(module):
                    node.target = f"{target}_{count}"


def _arguments(node: Node, operation: str) -> tuple[Any, ...] | None:
    """What the operation of `FloatFunctional` takes; None where it cannot say it."""
    if operation in JOINS:
        given = dict(zip(("tensors", "dim"), node.args, strict=False)) | node.kwargs
        dim = given.pop("dim", given.pop("axis", 0))
        values = given.pop("tensors", None)
        if given or not isinstance(values, list | tuple):
            return None
        return (list(values), dim)
    if node.kwargs or len(node.args) != 2:
        return None
    numbers = [each for each in node.args if not isinstance(each, Node)]
    if not numbers:
        return tuple(_tensors(node)) or None
    whole = isinstance(node.args[0], Node) and isinstance(node.args[1], int | float)
    return node.args if whole and not isinstance(node.args[1], bool) else None


def _tensors(node: Node) -> Iterator[Any]:
    """Both operands, if each is a tensor."""
    if all(isinstance(e, Node) and isinstance(e.meta.get("val"), torch.Tensor) for e in node.args):
        yield from node.args
