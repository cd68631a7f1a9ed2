"""Let a graph take batches of any size, and tie it to the example's size again.

    %y = reshape(%x) {shape=[4,512]}          %y = reshape(%x) {shape=[-1,512]}
    %c = expand(@cls, [4,1,8])          ->    %n = sym_size(%x, 0); %c = expand(@cls, [%n,1,8])

A trace holds the example's sizes as numbers. Training has a short last batch, evaluation has larger
ones. The first size of what depends on an input is left open, then shapes are tried without data
at two other batch sizes; only if every value grows in its first dimension and nowhere else is the
call freed. Otherwise the graph stays as it is; `prepare_qat` then names the dimension instead,
which follows a batch through the reshapes of attention too (`batch_dimensions`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from fxquant.ir.aten import aten, packet_name
from fxquant.ir.edit import copy_graph_module, inherit
from fxquant.ir.operators import expand_dim, narrow_dim
from fxquant.ir.state import state_of
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.registry import register_pass
from fxquant.quant.batches import SIZED, depends_on_input, only_grows
from fxquant.tracing.codegen import SignatureCodeGen
from fxquant.tracing.dynamic.generalizer import dimensions_of
from fxquant.tracing.signature import Signature

TRIED = (Fraction(2), Fraction(3))


@register_pass
@dataclass(frozen=True)
class FreeBatchSize(Pass):
    """Let the graph take batches of any size, where shapes allow it.

    graph(%x):                                   graph(%x):
      %y = reshape(%x) {shape=[4,512]}      ->     %y = reshape(%x) {shape=[-1,512]}
      return (%y)                                  return (%y)
    """

    name: ClassVar[str] = "free-batch-size"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        if dimensions_of(graph_module):  # it holds for every size as it is
            return PassResult(graph_module, False)
        trial = copy_graph_module(graph_module)
        size = batch_size(trial)
        if size is None:
            return PassResult(graph_module, False)
        _open(trial, size)
        if not all(only_grows(_flat(trial), ratio) for ratio in TRIED):
            return PassResult(graph_module, False)
        _set_any_batch(trial, True)
        return PassResult(trial, True)


@register_pass
@dataclass(frozen=True)
class FixBatchSize(Pass):
    """Tie a graph to the batch size that it was traced with, as files are.

    graph(%x):                                   graph(%x):
      %y = reshape(%x) {shape=[-1,512]}     ->     %y = reshape(%x) {shape=[4,512]}
      return (%y)                                  return (%y)
    """

    name: ClassVar[str] = "fix-batch-size"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        signature = state_of(graph_module).signature
        if not (isinstance(signature, Signature) and signature.any_batch):
            return PassResult(graph_module, False)
        for node in list(graph_module.graph.nodes):
            if node.op == "call_function":
                _fix(node)
        for node in reversed(list(graph_module.graph.nodes)):
            if node.target is aten.sym_size.int and not node.users:
                graph_module.graph.erase_node(node)
        _set_any_batch(graph_module, False)
        return PassResult(graph_module, True)


def takes_any_batch(graph_module: GraphModule) -> bool:
    """Whether a graph may be called with other batches than the example's."""
    signature = state_of(graph_module).signature
    return isinstance(signature, Signature) and signature.any_batch


def batch_dimensions(graph_module: GraphModule) -> dict[str, dict[int, str]] | None:
    """The first dimension of every input by one name, as `dynamic_shapes` takes it.

    None where inputs have no such size in common, or stand in structures.
    """
    names = [spec.name for spec in state_of(graph_module).signature.inputs]
    if batch_size(graph_module) is None or any("." in name for name in names):
        return None
    return {name: {0: "batch"} for name in names}


def mark_any_batch(graph_module: GraphModule) -> GraphModule:
    """Say of a graph with named dimensions that its files have the example's sizes."""
    _set_any_batch(graph_module, True)
    return graph_module


def _fix(node: Node) -> None:
    """Write the sizes that an operator has in the example."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return
    shape = list(value.shape)
    if packet_name(node.target) in SIZED:
        node.update_arg(SIZED[packet_name(node.target)], shape)
    elif node.target is expand_dim:
        node.target, node.args = aten.expand.default, (node.args[0], shape)
    elif node.target is narrow_dim:
        source, _, dim = node.args[:3]
        assert isinstance(dim, int)
        node.target, node.args = aten.slice.Tensor, (source, dim, 0, shape[dim])


def batch_size(graph_module: GraphModule) -> int | None:
    """The first size that all inputs have in common; None if there is no such."""
    inputs = [node.meta["val"] for node in graph_module.graph.find_nodes(op="placeholder")]
    sizes = {value.shape[0] if value.dim() else 0 for value in inputs}
    return sizes.pop() if len(sizes) == 1 and 0 not in sizes else None


def _open(root: GraphModule, size: int) -> None:
    reached = depends_on_input(root)
    first = root.graph.find_nodes(op="placeholder")[0]
    for node in list(root.graph.nodes):
        if node.op != "call_function" or packet_name(node.target) not in SIZED:
            continue
        place = SIZED[packet_name(node.target)]
        sizes, shape = list(node.args[place]), node.meta["val"].shape
        if not sizes or not shape or sizes[0] != shape[0]:
            continue
        if packet_name(node.target) == "expand":
            _open_expand(root, node, first, sizes, size)
        elif node in reached and -1 not in sizes and sizes[0] % size == 0:
            node.update_arg(place, [-1, *sizes[1:]])


def _open_expand(root: GraphModule, node: Node, first: Node, sizes: list[int], size: int) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    value = source.meta["val"]
    if value.dim() == len(sizes) and value.shape[0] == sizes[0] and source.op != "get_attr":
        node.update_arg(1, [-1, *sizes[1:]])
    elif sizes[0] == size:
        with root.graph.inserting_before(node):
            read = root.graph.create_node("call_function", aten.sym_size.int, (first, 0))
        read.meta["val"] = size
        inherit(read, node, value=False)
        node.update_arg(1, [read, *sizes[1:]])


def _flat(root: GraphModule) -> GraphModule:
    """The graph with flat inputs, its modules shared."""
    graph = Graph()
    graph.output(graph.graph_copy(root.graph, {}))
    return GraphModule(root, graph)


def _set_any_batch(root: GraphModule, free: bool) -> None:
    """Also without names, where the batch is the example's again."""
    state = state_of(root)
    if not isinstance(state.signature, Signature):
        return
    signature = replace(state.signature, any_batch=free)
    if not free:
        signature = replace(signature.respecified(names=()), dimensions=())
    state.signature = signature
    root.graph.set_codegen(SignatureCodeGen(signature))
