"""Run a graph once, with four values of each node side by side.

    exact       nothing rounded, and biases as they were before they were corrected
    rounded     everything rounded: errors of all layers before accumulate
    alone       the layer rounds its inputs, weights and result; its inputs come from `exact`
    weights     only the layer's weights are rounded

A value is dropped after its last use, so that the memory is that of one batch in flight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from fxquant.ir.edit import get_attribute
from fxquant.ir.stepping import Stepper
from fxquant.quant.bias_correction import BIAS, UNCORRECTED, UNROUNDED
from fxquant.quant.error_report.roles import Part, Roles


@dataclass(frozen=True)
class Measured:
    """A layer's result in one batch.

    Attributes:
        node: where it was taken: what rounds it, or the operator that ends the layer.
        wanted: the float value.
        quantized: with all layers quantized.
        alone: with this layer quantized only; None for an output of the graph.
        weights: with this layer's weights quantized only; None where it has none.
    """

    node: Node
    wanted: Tensor
    quantized: Tensor
    alone: Tensor | None
    weights: Tensor | None


Sink = Callable[[Measured], None]
Values = dict[Node, Any]


@dataclass
class Constants:
    """Values that depend on no input, by node name; computed in the first batch."""

    rounded: dict[str, Any] = field(default_factory=dict)
    exact: dict[str, Any] = field(default_factory=dict)


class Walk:
    """Runs calls of a graph.

    Args:
        graph: the graph of the roles, or its copy for another batch size.
        roles: of the graph's nodes.
        constants: shared by all calls.
        sink: is shown every layer's result, and every output of the graph.
    """

    def __init__(self, graph: GraphModule, roles: Roles, constants: Constants, sink: Sink) -> None:
        self.graph, self.roles, self.constants, self.sink = graph, roles, constants, sink
        self.engine = Stepper(graph)
        self.exact: Values = {}
        self.rounded: Values = {}
        self.alone: Values = {}
        self.weights: Values = {}

    def run(self, inputs: tuple[Tensor, ...]) -> None:
        """Walk through the graph once."""
        waiting = iter(inputs)
        for node in self.graph.graph.nodes:
            if node.op == "output":
                self._outputs(node)
            elif node.op == "placeholder":
                self.exact[node] = self.rounded[node] = self.alone[node] = next(waiting)
            else:
                self._step(node, self.roles.parts[node.name])
            for done in self.engine.user_to_last_uses.get(node, ()):
                for values in (self.exact, self.rounded, self.alone, self.weights):
                    values.pop(done, None)

    def _step(self, node: Node, part: Part) -> None:
        if part is Part.CONSTANT:
            self._constant(node)
            return
        rounding = part is Part.ROUNDS
        self.exact[node] = self._source(node, self.exact) if rounding else self._float(node)
        self.rounded[node] = self._call(node, self.rounded)
        if rounding:
            self._round(node)
        elif part is Part.LEAVES:
            self.alone[node] = self.exact[node]
        else:
            self._compute(node, part)

    def _constant(self, node: Node) -> None:
        known = self.constants
        if node.name not in known.rounded:
            known.rounded[node.name] = self._call(node, self.rounded)
            rounding = node.name in self.roles.rounding
            exact = self._source(node, self.exact) if rounding else self._call(node, self.exact)
            known.exact[node.name] = exact
        self.exact[node] = known.exact[node.name]
        self.rounded[node] = self.alone[node] = known.rounded[node.name]

    def _round(self, node: Node) -> None:
        """Show the layer that ends here; who reads it alone reads the float value, rounded."""
        source = node.all_input_nodes[0]
        self._show(node, self._call(node, self.alone), self.weights.get(source))
        again = self.roles.parts[source.name] in {Part.ROUNDS, Part.MOVES}
        self.alone[node] = self._call(node, self.alone if again else self.exact)

    def _compute(self, node: Node, part: Part) -> None:
        self.alone[node] = self._call(node, self.alone, old_bias=True)
        if part is Part.MOVES:
            return
        values = self._with_rounded_weights(node)
        if values is not None:
            self.weights[node] = self._call(node, values, old_bias=True)
        if part is Part.ENDS:
            self._show(node, self.alone[node], self.weights.get(node))
            self.alone[node] = self.exact[node]

    def _with_rounded_weights(self, node: Node) -> Values | None:
        """Float inputs and rounded weights, where the node or its beginning has any."""
        sources, parts = node.all_input_nodes, self.roles.parts
        constants = [source for source in sources if parts[source.name] is Part.CONSTANT]
        begun = [source for source in sources if self.roles.ends_in.get(source.name) == node.name]
        begun = [source for source in begun if source in self.weights]
        if not begun and not any(self.roles.is_rounded(source) for source in constants):
            return None
        rounded = {source: self.rounded[source] for source in constants}
        return {**self.exact, **rounded, **{source: self.weights[source] for source in begun}}

    def _source(self, node: Node, values: Values) -> Any:
        return values[node.all_input_nodes[0]]

    def _float(self, node: Node) -> Any:
        values = self.exact
        if UNROUNDED in node.meta:
            weight = get_attribute(self.roles.root, node.meta[UNROUNDED])
            values = {**values, node.all_input_nodes[1]: weight}
        return self._call(node, values, old_bias=True)

    def _call(self, node: Node, values: Values, old_bias: bool = False) -> Any:
        """The node's result for these values of its arguments."""
        if node.op == "call_module" and node.name in self.roles.rounding:
            module = get_attribute(self.graph, str(node.target))
            return module.rounded(self._source(node, values))
        if old_bias and UNCORRECTED in node.meta:
            values = {**values, node.args[BIAS]: self._old_bias(node)}  # type: ignore[dict-item]
        self.engine.env = values
        return self.engine.run_node(node)

    def _old_bias(self, node: Node) -> Tensor:
        """The bias that a layer had before it was corrected."""
        path, bias = node.meta[UNCORRECTED], node.args[BIAS]
        assert isinstance(bias, Node)
        now: Tensor = self.exact[bias]
        old: Tensor = now * 0 if path is None else get_attribute(self.roles.root, path)
        return old.detach()

    def _show(self, node: Node, alone: Any, weights: Any) -> None:
        leaves = [pytree.tree_leaves(v) for v in (self.exact[node], self.rounded[node], alone)]
        parts = [None] * len(leaves[0]) if weights is None else pytree.tree_leaves(weights)
        for wanted, rounded, own, part in zip(*leaves, parts, strict=True):
            if isinstance(wanted, Tensor) and wanted.is_floating_point():
                self.sink(Measured(node, wanted, rounded, own, part))

    def _outputs(self, node: Node) -> None:
        for source in node.all_input_nodes:
            wanted = self.exact[source]
            if isinstance(wanted, Tensor) and wanted.is_floating_point():
                self.sink(Measured(source, wanted, self.rounded[source], None, None))
