"""Measure the error of every layer of a quantized graph on data.

    report = error_report(prepared, loader)
    print(report)                             every layer, then where to look first
    report.sorted("clipped")[:5]              rows are dataclasses
    pandas.DataFrame(report.to_dicts())

The graph is walked once for each batch, with float and quantized values side by side (`walk`).
Only sums are kept, so that any amount of data may pass.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.fx import GraphModule, Node

from fxquant.errors import CalibrationError
from fxquant.ir.state import state_of
from fxquant.quant.batches import BatchRunner
from fxquant.quant.error_report.first_row import first_row
from fxquant.quant.error_report.layer_error import LayerError
from fxquant.quant.error_report.report import ErrorReport
from fxquant.quant.error_report.roles import Roles
from fxquant.quant.error_report.sums import ErrorSums
from fxquant.quant.error_report.walk import Constants, Measured, Walk
from fxquant.quant.progress import progress_bar
from fxquant.quant.settle import check_observers, fake_quantizes, settle


def error_report(
    quantized: GraphModule,
    data: Iterable[Any],
    *,
    transform: Callable[[Any], Any] | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> ErrorReport:
    """The error of every layer against the float model, alone and accumulated.

    *Alone*, a layer reads the float model's values and rounds its inputs, weights and result.
    *Cumulative* is the error of the quantized model as it stands. Both are summed over all values
    of all batches; a batch that does not fit the graph is run sample by sample.

    Args:
        quantized: what `calibrate` or `convert` returned; it is not changed.
        data: batches of inputs, as for `calibrate`; better others than those calibrated on.
        transform: makes the inputs from a batch, e.g. drops labels.
        limit: the number of batches to use; None uses all.
        progress: show a progress bar, if the output is a terminal.

    Raises:
        CalibrationError: the graph is not quantized, or not calibrated; or there are no data.
        InputError: a batch does not fit the model's inputs.
    """
    _check(quantized)
    roles = Roles.of(quantized)
    collector = _Collector(quantized, roles)
    runner, constants = BatchRunner(quantized), Constants()
    batches = islice(data if transform is None else map(transform, data), limit)
    with evaluated(quantized), progress_bar("measuring", progress, data, limit) as advance:
        for number, batch in enumerate(batches):
            for graph, inputs in runner.calls(batch, number):
                Walk(graph, roles, constants, collector.take).run(inputs)
                collector.report.samples += inputs[0].shape[0] if inputs[0].dim() else 1
            advance()
    if not collector.report.samples:
        raise CalibrationError("there are no data", fix="give an iterable with at least one batch")
    return collector.finished()


def _check(quantized: GraphModule) -> None:
    properties = state_of(quantized).properties
    if not {"observed", "frozen"} & properties:
        fix = "give what calibrate(prepared, …) or convert(prepared) returned"
        raise CalibrationError("the graph is not quantized", fix=fix)
    if "observed" in properties:
        check_observers(quantized)
        if not all(module.assigned for _, module in fake_quantizes(quantized) if module.constant):
            settle(quantized)  # weights need no data, so nobody had to calibrate


@contextlib.contextmanager
def evaluated(graph_module: GraphModule) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every module's own mode back afterwards."""
    modes = {module: module.training for module in graph_module.modules()}
    graph_module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


class _Collector:
    """Sums up what walks show, a row for each layer."""

    def __init__(self, root: GraphModule, roles: Roles) -> None:
        self.root, self.roles = root, roles
        self.nodes: dict[str, Node] = {node.name: node for node in root.graph.nodes}
        self.report = ErrorReport()
        self.by_node: dict[str, LayerError] = {}

    def take(self, seen: Measured) -> None:
        """Add one layer's result, or an output's."""
        name = seen.node.name
        if seen.alone is None:
            sums = self.report.outputs.setdefault(name, ErrorSums())
            sums.add(seen.quantized, seen.wanted)
            return
        row = self.by_node.get(name)
        if row is None:
            row = self.by_node[name] = first_row(self.roles, self.nodes[name])
            self.report.rows.append(row)
        row.alone.add(seen.alone, seen.wanted)
        row.cumulative.add(seen.quantized, seen.wanted)
        if seen.weights is not None:
            row.weights = row.weights or ErrorSums()
            row.weights.add(seen.weights, seen.wanted)
        row.see(seen.wanted)

    def finished(self) -> ErrorReport:
        """The report with every layer's share of the noise."""
        take_shares(self.report)
        return self.report


def take_shares(report: ErrorReport) -> None:
    """Give every row its share of the noise that all layers make."""
    ratios = [row.alone.noise_to_signal for row in report.rows]
    total = sum(ratio for ratio in ratios if math.isfinite(ratio))
    for row, ratio in zip(report.rows, ratios, strict=True):
        row.share = ratio / total if total and math.isfinite(ratio) else 0.0
