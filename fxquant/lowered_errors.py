"""The error of every layer in the last graph: after lowering, with the target's own arithmetic.

    quantized = fq.convert(prepared)
    lowered = fq.lower(quantized, "tflite")
    print(fq.error_report(lowered, loader, reference=quantized))

Lowering changes operators, layouts and arithmetic, but every node keeps the name of the core node
that it comes from. So the two graphs are run side by side: the core graph gives the float value of
each layer, and the last lowered node of the same origin what became of it.

    core                      lowered
    %conv = conv2d(…)         %conv_t = transpose(%x)           on the way
    %relu = relu(%conv)       %conv = conv_2d(…) {RELU}         paired with %relu_q, in NHWC
    %relu_q = fake_quantize(%relu)

*Alone*, a layer reads float values, stored as the lowered graph stores them; *cumulative* is the
lowered graph as it stands. The order of a value's dimensions is found from its shape, and from the
values where several orders have that shape. What is paired with nothing is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from fxquant.backends.base import Lowered
from fxquant.errors import CalibrationError, InputError
from fxquant.ir.aten import packet_name
from fxquant.ir.state import state_of
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.batches import BatchRunner
from fxquant.quant.constraints import ConstraintTable, clamp_bounds, is_getitem
from fxquant.quant.error_report.first_row import first_row, origins
from fxquant.quant.error_report.layer_error import LayerError
from fxquant.quant.error_report.measure import error_report as core_error_report
from fxquant.quant.error_report.measure import evaluated, take_shares
from fxquant.quant.error_report.report import ErrorReport, Unpaired
from fxquant.quant.error_report.roles import Part, Roles
from fxquant.quant.error_report.sums import ErrorSums
from fxquant.quant.error_report.walk import Constants, Measured, Walk
from fxquant.quant.progress import progress_bar

MOST_DIMENSIONS = 4
"""Of more dimensions, not counting those of size 1, only the order as it is gets tried."""

Values = dict[Node, Any]


def error_report(
    quantized: GraphModule | Lowered,
    data: Iterable[Any],
    *,
    reference: GraphModule | None = None,
    transform: Callable[[Any], Any] | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> ErrorReport:
    """The error of every layer against the float model, alone and accumulated.

    *Alone*, a layer reads the float model's values and rounds its inputs, weights and result.
    *Cumulative* is the error of the quantized model as it stands. Both are summed over all values
    of all batches; a batch that does not fit the graph is run sample by sample.

    Args:
        quantized: what `calibrate`, `convert` or `lower` returned; it is not changed.
        data: batches of inputs, as for `calibrate`; better others than those calibrated on.
        reference: for a lowered program, the graph that was given to `lower`.
        transform: makes the inputs from a batch, e.g. drops labels.
        limit: the number of batches to use; None uses all.
        progress: show a progress bar, if the output is a terminal.

    Raises:
        CalibrationError: the graph is not quantized, or not calibrated; or there are no data.
        InputError: a batch does not fit the model's inputs; a lowered program without reference.
    """
    if not isinstance(quantized, Lowered):
        if reference is not None:
            raise InputError("a graph is its own reference", fix="leave out reference=")
        return core_error_report(
            quantized, data, transform=transform, limit=limit, progress=progress
        )
    if reference is None:
        fix = "give reference=, the graph that lower was called with"
        raise InputError("a lowered program does not hold the float values", fix=fix)
    if "functional" not in state_of(reference).properties:
        reference = Pipeline.default("float")(reference)
    comparison = _Comparison(quantized, reference)
    runner = BatchRunner(reference)
    batches = islice(data if transform is None else map(transform, data), limit)
    with evaluated(reference), progress_bar("measuring", progress, data, limit) as advance:
        for number, batch in enumerate(batches):
            for _, leaves in runner.calls(batch, number):
                for sample in runner.samples(leaves):
                    comparison.sample(sample)
            advance()
    if not comparison.report.samples:
        raise CalibrationError("there are no data", fix="give an iterable with at least one batch")
    return comparison.finished()


@dataclass
class _Pair:
    """A layer and the lowered node that holds its result.

    Attributes:
        layer: the core node whose value is meant.
        row: its errors.
        order: how the lowered value's dimensions are those of the core's, size 1 left out; None
            until values were seen.
        cut: whether an activation of which the layer knows nothing is fused into the node.
    """

    layer: Node
    row: LayerError
    order: tuple[int, ...] | None = None
    cut: bool = False


class _Comparison:
    """Runs both graphs on samples; rows grow with every one."""

    def __init__(self, lowered: Lowered, reference: GraphModule) -> None:
        self.lowered, self.reference = lowered, reference
        self.roles = Roles.of(reference)
        self.constants = Constants()
        self.report = ErrorReport(stage=lowered.backend.name)
        self.last = _last_of_each_origin(lowered.graph_module)
        self.pairs: dict[Node, _Pair] = {}
        self.engine = _Lowered(lowered)
        self.order_of_outputs: dict[int, tuple[int, ...] | None] = {}
        self.seen: set[str] = set()

    def sample(self, inputs: tuple[Tensor, ...]) -> None:
        """Run both on one sample of the example's size."""
        layers: dict[str, list[Tensor]] = {}
        outputs: list[tuple[str, Tensor]] = []

        def sink(measured: Measured) -> None:
            if measured.alone is None:
                outputs.append((measured.node.name, measured.wanted))
            else:
                layers.setdefault(measured.node.name, []).append(measured.wanted)

        Walk(self.reference, self.roles, self.constants, sink).run(inputs)
        self._pair(layers)
        wanted = {
            node: layers[pair.layer.name][0]
            for node, pair in self.pairs.items()
            if pair.layer.name in layers and not pair.cut
        }
        found = self.engine.run(inputs, wanted, self._take)
        self._outputs(outputs, found)
        self.report.samples += inputs[0].shape[0] if inputs and inputs[0].dim() else 1

    def _pair(self, layers: dict[str, list[Tensor]]) -> None:
        """Find the lowered nodes of layers that are seen for the first time."""
        nodes = {node.name: node for node in self.reference.graph.nodes}
        for name in [name for name in layers if name not in self.seen]:
            self.seen.add(name)
            if self._moves(nodes[name]):
                continue
            row = first_row(self.roles, nodes[name])
            sizes = _sizes(layers[name][0].shape)
            candidates = (self.last.get(origin) for origin in origins(self.roles, nodes[name]))
            fitting = (n for n in candidates if n is not None)
            node = next((n for n in fitting if _sizes(n.meta["val"].shape) == sizes), None)
            if node is None and len(layers[name]) == 1 and self._joins(nodes[name], row, sizes):
                continue
            if node is None or len(layers[name]) > 1 or node in self.pairs:
                self._unpaired(row)
                continue
            self.pairs[node] = _Pair(nodes[name], row, cut=self._is_cut(nodes[name], node))
            self.report.rows.append(row)

    def _moves(self, layer: Node) -> bool:
        """Whether a float operator only moves values, which lowering may do in another order."""
        table = self.lowered.backend.constraints()
        if self.roles.parts[layer.name] is Part.ROUNDS or not isinstance(table, ConstraintTable):
            return False
        row = table.row_of(layer, self.reference)
        return is_getitem(layer) or (row is not None and row.output.moves)

    def _is_cut(self, layer: Node, node: Node) -> bool:
        rounded = self.roles.parts[layer.name] is Part.ROUNDS
        end = layer.all_input_nodes[0] if rounded else layer
        return self.lowered.backend.is_activated(node) and clamp_bounds(end) is None

    def _joins(self, layer: Node, row: LayerError, sizes: list[int]) -> bool:
        """Whether lowering made a layer a part of the one before it, whose node holds its result
        then: a fused activation, a permutation that became a layout."""
        head = list(origins(self.roles, layer))[-1]
        (source,) = [n for n in self.reference.graph.nodes if n.name == head]
        before = source.all_input_nodes[0] if source.all_input_nodes else source
        for node, pair in self.pairs.items():
            alike = _sizes(node.meta["val"].shape) == sizes
            if pair.layer is before and len(before.users) == 1 and alike:
                pair.layer, pair.order, pair.cut = layer, None, False
                pair.row.operator = f"{pair.row.operator} {row.operator}"
                return True
        return False

    def _unpaired(self, row: LayerError) -> None:
        self.report.unpaired.append(Unpaired(row.node, row.operator, "lowered"))

    def _take(self, node: Node, alone: Tensor, together: Tensor, wanted: Tensor) -> Tensor | None:
        """Add a layer's values; returns the float value in the lowered order of dimensions."""
        pair = self.pairs[node]
        pair.order = _order(together, wanted) if pair.order is None else pair.order
        if pair.order is None:
            return None
        arranged = _arranged(wanted, pair.order, together.shape)
        pair.row.alone.add(alone, arranged)
        pair.row.cumulative.add(together, arranged)
        pair.row.see(wanted)
        return arranged

    def _outputs(self, outputs: Sequence[tuple[str, Tensor]], found: Sequence[Any]) -> None:
        for place, ((name, wanted), value) in enumerate(zip(outputs, found, strict=False)):
            if not isinstance(value, Tensor) or value.numel() != wanted.numel():
                continue
            if self.order_of_outputs.get(place) is None:
                self.order_of_outputs[place] = _order(value, wanted)
            order = self.order_of_outputs[place]
            if order is not None:
                sums = self.report.outputs.setdefault(name, ErrorSums())
                sums.add(value, _arranged(wanted, order, value.shape))

    def finished(self) -> ErrorReport:
        """The report, with what has no counterpart in either graph."""
        for pair in [each for each in self.pairs.values() if each.order is None]:
            self.report.rows.remove(pair.row)
            self._unpaired(pair.row)
        known = {node.name for node in self.reference.graph.nodes}
        for node in self.engine.computed():
            if node.meta.get("core") not in known:
                self.report.unpaired.append(Unpaired(node.name, packet_name(node.target), "float"))
        take_shares(self.report)
        return self.report


class _Lowered:
    """Runs a lowered graph with two values of each node: after all errors, and after its own."""

    def __init__(self, lowered: Lowered) -> None:
        self.lowered, self.backend = lowered, lowered.backend
        self.graph = lowered.graph_module
        self.engine = Interpreter(self.graph)
        self.fixed: Values = {}
        self.constant = _constants(self.graph)

    def computed(self) -> Iterator[Node]:
        """The operators that depend on an input."""
        for node in self.graph.graph.nodes:
            if node.op == "call_function" and node not in self.constant:
                yield node

    def run(
        self, inputs: tuple[Tensor, ...], wanted: dict[Node, Tensor], take: Any
    ) -> list[Tensor | None]:
        """Run once; `take` is shown the values of every node in `wanted`; returns the outputs."""
        given = iter(self.backend.inputs_of(self.lowered, inputs))
        together: Values = dict(self.fixed)
        alone: Values = dict(self.fixed)
        for node in self.graph.graph.nodes:
            if node.op == "output":
                return [self.backend.real(together[n]) for n in _results(node)]
            if node.op == "placeholder":
                together[node] = alone[node] = next(given)
            elif node in self.constant:
                if node not in self.fixed:
                    self.fixed[node] = self._call(node, together)
                together[node] = alone[node] = self.fixed[node]
            else:
                together[node] = self._call(node, together)
                alone[node] = self._call(node, alone)
            if node in wanted:
                alone[node] = self._shown(node, together, alone, wanted[node], take)
            for done in self.engine.user_to_last_uses.get(node, ()):
                if done not in self.constant:
                    together.pop(done, None)
                    alone.pop(done, None)
        return []

    def _shown(self, node: Node, together: Values, alone: Values, wanted: Tensor, take: Any) -> Any:
        """Who reads the node alone reads the float value, as the node stores it."""
        mine, all_errors = self.backend.real(alone[node]), self.backend.real(together[node])
        if mine is None or all_errors is None:
            return alone[node]
        exact = take(node, mine, all_errors, wanted)
        return alone[node] if exact is None else self.backend.stored(exact, together[node], node)

    def _call(self, node: Node, values: Values) -> Any:
        self.engine.env = values
        return self.engine.run_node(node)


def _results(output: Node) -> list[Node]:
    return [leaf for leaf in pytree.tree_leaves(output.args[0]) if isinstance(leaf, Node)]


def _constants(graph_module: GraphModule) -> set[Node]:
    found: set[Node] = set()
    for node in graph_module.graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr" or (sources and all(each in found for each in sources)):
            found.add(node)
    return found


def _last_of_each_origin(graph_module: GraphModule) -> dict[str, Node]:
    """The last node with a real value that comes from each core node, by that node's name."""
    constant = _constants(graph_module)
    return {
        str(node.meta["core"]): node
        for node in graph_module.graph.nodes
        if node.op != "output" and "core" in node.meta and node not in constant and _is_real(node)
    }


def _is_real(node: Node) -> bool:
    """Whether a value is floating point, or integers that stand for reals."""
    value, kind = node.meta.get("val"), node.meta.get("type")
    if not isinstance(value, Tensor):
        return False
    return value.is_floating_point() or getattr(kind, "quantization", None) is not None


def _sizes(shape: torch.Size) -> list[int]:
    """The sizes of a value in any order, those of 1 left out."""
    return sorted(size for size in shape if size != 1)


def _order(found: Tensor, wanted: Tensor) -> tuple[int, ...] | None:
    """How the dimensions of a value must be permuted to be those found, size 1 left out; by the
    values where several orders have the shape; None where none has.

    >>> _order(torch.zeros(1, 4, 5, 3), torch.zeros(1, 3, 4, 5))
    (1, 2, 0)
    """
    shape, value = found.squeeze().shape, wanted.squeeze()
    own = tuple(range(value.dim()))
    orders = permutations(own) if value.dim() <= MOST_DIMENSIONS else iter([own])
    fitting = [order for order in orders if value.permute(order).shape == shape]
    if not fitting:
        return None
    errors = [float((found.squeeze() - value.permute(o)).norm()) for o in fitting]
    least = min(errors)
    if least > 0.5 * float(value.norm()):  # a flattened image may have its elements in any order
        apart = found.flatten().sort().values - wanted.flatten().sort().values
        if float(apart.norm()) < least / 4:
            return None
    return fitting[errors.index(least)]


def _arranged(wanted: Tensor, order: tuple[int, ...], shape: torch.Size) -> Tensor:
    return wanted.squeeze().permute(order).reshape(shape)
