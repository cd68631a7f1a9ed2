"""Run a graph on batches of any size, although it was traced with one.

A trace holds the example's sizes as constants (`reshape(%x, [1, 512])`). For another batch size the
graph is copied, the leading sizes of reshapes are multiplied by the ratio of the two, and shapes
are tried without data. Only if every value then grows in its first dimension and nowhere else is
the batch run whole; otherwise it is run in slices of the example's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from fxquant.errors import InputError
from fxquant.ir.aten import packet_name
from fxquant.ir.placement import device_of
from fxquant.ir.state import state_of
from fxquant.tracing.signature import Signature, bind
from fxquant.tracing.structure import match

SIZED = {"reshape": 1, "view": 1, "_unsafe_view": 1, "expand": 1}
"""Operators with a list of sizes, and which argument that is."""

WRITERS = ("scatter", "index_put")
"""Endings of operators that write one value into another; nothing tells whether sizes fit there."""

FIX = "pass transform= that makes the model's inputs from a batch, e.g. drops labels"


Call = tuple[GraphModule, tuple[Tensor, ...]]
"""A graph (or its copy for another batch size), and the tensors for its placeholders."""


class BatchRunner:
    """Calls a graph with batches as a data loader gives them, moved to where the graph is.

    Args:
        graph_module: the graph; its modules are shared, its nodes are not touched.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        self.root = graph_module
        self.signature = state_of(graph_module).signature
        nodes = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        self.expected = {node.name: node.meta["val"] for node in nodes}
        self.graphs: dict[Fraction, GraphModule | None] = {}
        self.device = device_of(graph_module)

    def run(self, batch: Any, number: int) -> None:
        """Run one batch.

        Raises:
            InputError: the batch is not what the model takes.
        """
        for graph, leaves in self.calls(batch, number):
            graph(*leaves)

    def calls(self, batch: Any, number: int) -> Iterator[Call]:
        """The calls that run one batch.

        Raises:
            InputError: the batch is not what the model takes.
        """
        return self.calls_on(self._leaves(batch, number), number)

    def calls_on(self, leaves: list[Any], number: int = 0) -> Iterator[Call]:
        """The same for the values of the placeholders, in order."""
        leaves = [leaf.to(self.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if getattr(self.signature, "dimensions", ()):  # the graph itself takes any size
            yield self._whole(), tuple(leaves)
            return
        ratio = self._ratio(leaves, number)
        graph = self._graph(ratio)
        if graph is not None:
            yield graph, tuple(leaves)
            return
        graph = self._whole()
        for sample in self.samples(leaves):
            yield graph, sample

    def samples(self, leaves: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Inputs in slices of the example's batch size."""
        sizes = [wanted.shape[0] if wanted.dim() else 0 for wanted in self.expected.values()]
        pairs = list(zip(leaves, sizes, strict=True))
        count = max((-(-leaf.shape[0] // size) for leaf, size in pairs if size), default=1)
        for place in range(count):
            yield tuple(_slice(leaf, place, size) for leaf, size in pairs)

    def _whole(self) -> GraphModule:
        graph = self._graph(Fraction(1))
        assert graph is not None
        return graph

    def _graph(self, ratio: Fraction) -> GraphModule | None:
        if ratio not in self.graphs:
            self.graphs[ratio] = rebatched(self.root, ratio)
        return self.graphs[ratio]

    def _leaves(self, batch: Any, number: int) -> list[Any]:
        """The values of the placeholders, in order."""
        args = () if isinstance(batch, Mapping) else batch
        args = tuple(args) if isinstance(args, list | tuple) else (args,)
        kwargs = dict(batch) if isinstance(batch, Mapping) else {}
        if not isinstance(self.signature, Signature):
            return [*args, *kwargs.values()]
        try:
            bound = bind(self.signature.parameters, args, kwargs)
            return [leaf for _, leaf in match(self.signature.input_structure, bound, "batch")]
        except InputError as error:
            raise InputError(f"batch {number}: {error}", fix=FIX) from error

    def _ratio(self, leaves: list[Any], number: int) -> Fraction:
        """How many times the example's batch size the batch has, everything else alike."""
        if len(leaves) != len(self.expected):
            counts = f"{len(leaves)} tensors, the model takes {len(self.expected)}"
            raise InputError(f"batch {number} holds {counts}", fix=FIX)
        ratios = {
            self._checked(name, wanted, leaf, number)
            for (name, wanted), leaf in zip(self.expected.items(), leaves, strict=True)
        }
        if len(ratios) > 1:
            raise InputError(f"batch {number}: the inputs differ in batch size")
        return ratios.pop() if ratios else Fraction(1)

    def _checked(self, name: str, wanted: Tensor, leaf: Any, number: int) -> Fraction:
        if not isinstance(leaf, Tensor):
            what = f"input {name} is a {type(leaf).__name__}, not a tensor"
            raise InputError(f"batch {number}: {what}", fix=FIX)
        if leaf.dtype != wanted.dtype:
            what = f"input {name} has dtype {leaf.dtype}, the model takes {wanted.dtype}"
            raise InputError(f"batch {number}: {what}", fix=f"convert it with .to({wanted.dtype})")
        if leaf.dim() != wanted.dim() or leaf.shape[1:] != wanted.shape[1:] or not leaf.numel():
            shapes = f"shape {list(leaf.shape)}, the model takes {list(wanted.shape)}"
            fix = "only the first dimension may differ, and be larger"
            raise InputError(f"batch {number}: input {name} has {shapes}", fix=fix)
        return Fraction(leaf.shape[0], wanted.shape[0]) if leaf.dim() else Fraction(1)


def _slice(leaf: Tensor, place: int, size: int) -> Tensor:
    """Slice number `place`; a short last one begins earlier, so some samples count twice."""
    if leaf.dim() == 0:
        return leaf
    cut = leaf[max(0, min(place * size, leaf.shape[0] - size)) :][:size]
    short = size - cut.shape[0]
    return torch.cat([cut, cut[:1].expand(short, *cut.shape[1:])]) if short else cut


def rebatched(root: GraphModule, ratio: Fraction) -> GraphModule | None:
    """The graph with flat inputs for another batch size; None where its values would not just
    grow."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    graph.output(graph.graph_copy(root.graph, copies))
    result = GraphModule(root, graph)
    if ratio == 1:
        return result
    for node in _batched(root):
        _scale_sizes(copies[node], node.meta["val"].shape, ratio)
    result.recompile()
    return result if only_grows(result, ratio) else None


def _batched(root: GraphModule) -> list[Node]:
    """The sized operators whose value depends on an input."""
    reached = depends_on_input(root)
    return [node for node in reached if node.op != "output" and packet_name(node.target) in SIZED]


def depends_on_input(root: GraphModule) -> dict[Node, None]:
    """The nodes whose value depends on an input, in order."""
    reached: dict[Node, None] = {}
    for node in root.graph.nodes:
        if node.op == "placeholder" or any(source in reached for source in node.all_input_nodes):
            reached[node] = None
    return reached


def _scale_sizes(node: Node, shape: torch.Size, ratio: Fraction) -> None:
    place = SIZED[packet_name(node.target)]
    sizes = list(node.args[place])  # type: ignore[arg-type]
    scaled = shape[0] * ratio if shape else Fraction(0)
    if sizes and sizes[0] == shape[0] and scaled.denominator == 1:
        node.update_arg(place, [scaled.numerator, *sizes[1:]])


def only_grows(graph_module: GraphModule, ratio: Fraction) -> bool:
    """Whether every value of a flat graph grows with the batch in one dimension, or not at all.

    What is reshaped must grow in its first one: elsewhere a reshape would mix samples.
    """
    inputs = [
        _grown(n.meta["val"], ratio) for n in graph_module.graph.nodes if n.op == "placeholder"
    ]
    if any(packet_name(n.target).endswith(WRITERS) for n in graph_module.graph.nodes):
        return False
    shapes = _Shapes(graph_module)
    try:
        shapes.run(*inputs)
    except Exception:
        return False
    grown = {n: _grown_dimensions(old, new, ratio) for n, (old, new) in shapes.seen.items()}
    if any(dimensions is None or len(dimensions) > 1 for dimensions in grown.values()):
        return False
    reshaped = [n.args[0] for n in grown if packet_name(n.target) in SIZED]
    return all(not isinstance(n, Node) or grown.get(n) in (None, [], [0]) for n in reshaped)


def _grown_dimensions(old: torch.Size, new: torch.Size, ratio: Fraction) -> list[int] | None:
    """The dimensions that are multiplied; None where the shape changes otherwise.

    >>> _grown_dimensions(torch.Size([3, 1, 8]), torch.Size([3, 2, 8]), Fraction(2))
    [1]
    """
    if len(old) != len(new):
        return None
    changed = [place for place, size in enumerate(old) if size != new[place]]
    return changed if all(new[place] == old[place] * ratio for place in changed) else None


def _grown(value: Tensor, ratio: Fraction) -> Tensor:
    return torch.empty(_scaled(value.shape, ratio), dtype=value.dtype, device="meta")


def _scaled(shape: torch.Size, ratio: Fraction) -> torch.Size:
    return torch.Size([int(shape[0] * ratio), *shape[1:]]) if shape else shape


class _Shapes(Interpreter):
    """Runs a graph on the meta device, modules left out, and notes shapes: of the trace, and
    now."""

    def __init__(self, graph_module: GraphModule) -> None:
        super().__init__(graph_module)
        self.seen: dict[Node, tuple[torch.Size, torch.Size]] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        wanted = n.meta.get("val")
        if isinstance(result, Tensor) and isinstance(wanted, Tensor):
            self.seen[n] = wanted.shape, result.shape
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Fake quantization has no kernel for the meta device.
        if packet_name(target).startswith("fake_quantize"):
            return args[0]
        return super().call_function(target, args, kwargs)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0]

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().get_attr(target, args, kwargs).to("meta")
