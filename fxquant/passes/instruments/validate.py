"""Translation validation: run a pass's input and output on a probe and compare by its contract.

    with instruments(Validate()):
        pipeline(graph_module)

An `exact` pass must give the same bits, a `close` one must stay within its tolerance, one that
`changes` must still run and keep shapes and dtypes. The error names the first node that deviates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.fx import GraphModule

from fxquant.errors import PassError
from fxquant.ir.edit import copy_graph_module
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.passes.base import Pass, PassResult, Semantics
from fxquant.passes.instruments.base import Instrument
from fxquant.passes.instruments.comparison import compare, first_deviating
from fxquant.passes.instruments.deviation import Deviation
from fxquant.passes.instruments.probe import (
    IO_PERMUTATION,
    fitted_inputs,
    given_inputs,
    placeholders,
    probe_inputs,
)

if TYPE_CHECKING:
    from fxquant.passes.pipeline import Pipeline


class Validate(Instrument):
    """Compares the graph before and after each pass on a probe.

    Args:
        probe: inputs as the model takes them; random ones if None.
        seed: of the random probe.
    """

    def __init__(self, probe: Any = None, seed: int = 0) -> None:
        self.rows: list[tuple[str, float]] = []
        self._probe = probe
        self._seed = seed
        self._inputs: list[Any] | None = None
        self._before: GraphModule | None = None

    def before_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        self._inputs = self._first_inputs(graph_module)

    def _first_inputs(self, graph_module: GraphModule) -> list[Any]:
        if self._probe is None:
            return probe_inputs(graph_module, self._seed)
        return given_inputs(graph_module, self._probe)

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        self._before = copy_graph_module(graph_module)

    def after_pass(self, item: Pass, result: PassResult) -> None:
        assert self._before is not None
        before, self._before = self._before, None
        if not result.modified:
            return
        first = self._first_inputs(before) if self._inputs is None else self._inputs
        second = inputs_after(before, result.graph_module, first)
        semantics = contract_of(item, before, result.graph_module)
        comparison = compare(before, result.graph_module, first, second, semantics)
        self._inputs = second
        self.rows.append((item.name, comparison.gap.error))
        if comparison.within(semantics):
            return
        culprit = first_deviating(before, result.graph_module, first, second, semantics)
        raise _error(item, semantics, result.graph_module, comparison.gap, culprit)


def inputs_after(before: GraphModule, after: GraphModule, inputs: Sequence[Any]) -> list[Any]:
    """Inputs of the graph before a pass as the graph after it takes them."""
    permuted = [node.meta.get(IO_PERMUTATION) for node in placeholders(before)]
    if any(permutation is not None for permutation in permuted):
        return list(inputs)  # a later pass does not turn them again
    return fitted_inputs(after, inputs)


def contract_of(item: Pass, before: GraphModule, after: GraphModule) -> Semantics:
    """What holds between the two graphs once both are called with the same data.

    A pass that only turns the borders `changes` what callers see; with inputs and outputs turned
    back it keeps the contract of its class.
    """
    return type(item).semantics if _turned(after) and not _turned(before) else item.semantics


def _turned(graph_module: GraphModule) -> bool:
    (output,) = graph_module.graph.find_nodes(op="output")
    return any(IO_PERMUTATION in node.meta for node in (*placeholders(graph_module), output))


def _error(
    item: Pass, semantics: Semantics, after: GraphModule, gap: Deviation, culprit: Any
) -> PassError:
    what = f"the pass {item} promises {semantics} and gives {gap}"
    if culprit is None:
        return PassError(what, fix="compare the dumps before and after it")
    node, at_node = culprit
    return PassError(
        f"{what}; the first node that deviates has {at_node}",
        node=format_node(node, after),
        source=source_text(node),
        fix="the node is wrong, or the pass promises too much",
    )
