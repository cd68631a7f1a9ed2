"""One choice of precisions built for real: prepared, calibrated, measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from fxquant.api import convert, prepare
from fxquant.backends.base import Backend
from fxquant.ir.state import state_of
from fxquant.mixed.budget import Metric
from fxquant.mixed.layers import Layer, layers_of
from fxquant.mixed.noise import Noise
from fxquant.mixed.steps import milliseconds
from fxquant.passes.borders import borders
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.pipelines import DECIDE, OBSERVE
from fxquant.quant.batches import BatchRunner
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import ConstraintTable
from fxquant.quant.costs import GENERIC, CostTable


@dataclass(frozen=True, eq=False)
class Subject:
    """What all candidates are made from.

    Attributes:
        core: the float graph in the core dialect, by which all are measured.
        example_inputs: as for `prepare`.
        data: batches of inputs, read again and again.
        backend: the target.
        judges: batches by which candidates are judged.
    """

    core: GraphModule
    example_inputs: Any
    data: Iterable[Any]
    backend: str | Backend
    judges: Iterable[Any]

    def candidate(self, config: QuantConfig) -> Candidate:
        """The model in a configuration, calibrated.

        Raises:
            ConfigError: the rules do not fit the model or the target.
        """
        annotated = prepare(
            self.core,
            self.example_inputs,
            config,
            pipeline=Pipeline(DECIDE),
            backend=self.backend,
        )
        prepared = Pipeline(OBSERVE)(annotated)
        calibrate(prepared, self.data, progress=False)
        return Candidate(self, config, annotated, prepared)


@dataclass(frozen=True, eq=False)
class Candidate:
    """The model in one configuration.

    Attributes:
        subject: what it is made from.
        config: the precisions.
        annotated: the graph with its decisions.
        prepared: the graph with calibrated observers.
    """

    subject: Subject
    config: QuantConfig
    annotated: GraphModule
    prepared: GraphModule

    @cached_property
    def graph(self) -> GraphModule:
        """The frozen graph."""
        return convert(self.prepared)

    @cached_property
    def sqnr(self) -> float:
        """Signal to quantization noise at the output in dB, on the data that judge."""
        floats, quantized = BatchRunner(self.subject.core), BatchRunner(self.prepared)
        noise = Noise()
        with torch.no_grad():
            for number, batch in enumerate(self.subject.judges):
                wanted = [graph(*inputs) for graph, inputs in floats.calls(batch, number)]
                found = [graph(*inputs) for graph, inputs in quantized.calls(batch, number)]
                for want, have in zip(wanted, found, strict=True):
                    noise.add(_tensors(want), _tensors(have))
        return noise.sqnr

    @cached_property
    def _measures(self) -> dict[Metric, float]:
        return {}

    def metric(self, measure: Metric) -> float:
        """The user's own measure of the frozen graph, taken once."""
        if measure not in self._measures:
            self._measures[measure] = float(measure(self.graph))
        return self._measures[measure]

    @cached_property
    def layers(self) -> list[Layer]:
        """All operators that compute."""
        return layers_of(self.annotated, floats=True)

    @property
    def size(self) -> int:
        """Bytes of weights and biases."""
        return sum(layer.weight_bytes(layer.precision) for layer in self.layers)

    @property
    def latency(self) -> float:
        """Milliseconds by the target's table: layers and borders."""
        table = costs_of(self.annotated)
        layers = sum(milliseconds(table, each, each.precision) for each in self.layers)
        elements = sum(border.elements for border in borders(self.annotated))
        return layers + table.milliseconds("conversion", "float32", elements)


def costs_of(graph_module: GraphModule) -> CostTable:
    """The cost table of a graph's target."""
    table = state_of(graph_module).constraints
    return table.costs if isinstance(table, ConstraintTable) else GENERIC


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
