"""Choose int8, int16 or float for every layer, so that a budget is kept.

    config, report = fq.auto_mixed_precision(model, (x,), data, budget=Budget(sqnr=30))
    print(report.render())
    Path("mixed.yaml").write_text(config.to_yaml())

1. The model is prepared and calibrated as the configuration asks, e.g. all in int8.
2. One pass over the data measures the noise that each layer adds alone (`sensitivity`).
3. Better precisions are ordered by how much noise they take away for their cost (`steps`).
4. For an accuracy, the fewest first steps that reach it are found by simulating prefixes of that
   order, and those of them that the others make needless are dropped; for a limit of size or
   time, all steps that fit are taken.
5. The choice is prepared and calibrated for real and measured; where it falls short of the
   accuracy, more steps are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from fxquant.api import traced
from fxquant.backends.base import Backend
from fxquant.errors import ConfigError
from fxquant.ir.state import state_of
from fxquant.mixed.budget import Budget
from fxquant.mixed.candidate import Candidate, Subject, costs_of
from fxquant.mixed.layers import Layer, can_compute, layers_of
from fxquant.mixed.mixed_report import Chosen, MixedReport, figures_of
from fxquant.mixed.noise import decibels
from fxquant.mixed.sensitivity import check_readable_again
from fxquant.mixed.simulation import Mixture, Simulation
from fxquant.mixed.steps import Option, Step, milliseconds, steps_of
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.constraints import annotation_of
from fxquant.quant.spec import Precision, precision

PREFIXES = 12
"""How many prefixes one pass over the data compares."""

MOST_BUILDS = 5

READING = 1e-7
"""Milliseconds to read a byte of weights from memory, at 10 GB/s."""

SMALLEST_COST = 1e-9


class MixedPrecision(NamedTuple):
    """The choice, and how it came about."""

    config: QuantConfig
    report: MixedReport


def auto_mixed_precision(
    model: nn.Module,
    example_inputs: Any,
    data: Iterable[Any],
    *,
    budget: Budget,
    config: QuantConfig | None = None,
    backend: str | Backend = "tflite",
    precisions: Sequence[str] = ("float32",),
    transform: Callable[[Any], Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> MixedPrecision:
    """The configuration that keeps a budget, and a report.

    Args:
        model: any module, or a traced graph; it is not changed.
        example_inputs: a tuple of inputs, as in `torch.export`.
        data: batches of inputs, read several times: a list or a DataLoader.
        budget: what to keep to.
        config: where to begin; all that the target can in int8 if None. Operators that its rules
            name keep what the rules say.
        backend: the target, which has the kernels and the cost table.
        precisions: names of what a layer may compute in instead, e.g. ("int16x8", "float32").
        transform: makes the inputs from a batch, e.g. drops labels.
        kwargs: keyword inputs of the model.

    Raises:
        InputError: data that can be read only once.
        CalibrationError: there are no data, or they are not finite.
        ConfigError: there is no precision of that name, or rules that do not fit.
    """
    check_readable_again(data)
    tried = [_choosable(name) for name in precisions]
    core = traced(model, example_inputs, kwargs)
    if "functional" not in state_of(core).properties:
        core = Pipeline.default("float")(core)
    batches = data if transform is None else _Transformed(data, transform)
    subject = Subject(core, example_inputs, batches, backend)
    start = subject.candidate(config or QuantConfig())
    search = _Search(start, budget, tried)
    chosen, count = search.accurate() if budget.demands_accuracy else search.within_limits()
    return MixedPrecision(chosen.config, search.report(chosen, count))


def _choosable(name: str) -> Precision:
    chosen = precision(name)
    if not chosen.quantized and name != "float32":
        fix = "choose among float32 and precisions with integer activations, e.g. int16x8"
        raise ConfigError(f"{name} is not chosen layer by layer", fix=fix)
    return chosen


class _Transformed:
    """Data whose batches are made anew in every pass."""

    def __init__(self, data: Iterable[Any], transform: Callable[[Any], Any]) -> None:
        self.data, self.transform = data, transform

    def __iter__(self) -> Any:
        return map(self.transform, self.data)


class _Search:
    def __init__(self, start: Candidate, budget: Budget, tried: Sequence[Precision]) -> None:
        self.start, self.budget = start, budget
        self.simulation = Simulation(start.prepared)
        self.costs = costs_of(start.annotated)
        layers = [each for each in layers_of(start.prepared) if self._is_open(each)]
        self.noise = self._measured(layers, tried)
        self.steps = steps_of((layer, self._options(layer)) for layer in layers)

    def _is_open(self, layer: Layer) -> bool:
        """Whether no rule of the user's names the layer."""
        nodes = {node.name: node for node in self.start.prepared.graph.nodes}
        annotation = annotation_of(nodes[layer.name])
        return annotation is not None and annotation.reason == "default"

    def _measured(
        self, layers: Sequence[Layer], tried: Sequence[Precision]
    ) -> dict[str, dict[Precision, float]]:
        """The noise of each layer alone in each precision, in one pass over the data."""
        found: dict[str, dict[Precision, float]] = {layer.name: {} for layer in layers}
        plan: list[tuple[Layer, Precision]] = []
        for layer in layers:
            for choice in (layer.precision, *tried):
                if not choice.quantized:
                    found[layer.name][choice] = 0.0
                elif can_compute(self.start.prepared, layer, choice):
                    plan.append((layer, choice))
        noises = self.simulation.measure(
            [self._alone(layer, choice) for layer, choice in plan], self.start.subject.data
        )
        for (layer, choice), noise in zip(plan, noises, strict=True):
            found[layer.name][choice] = noise.ratio
        return found

    def _alone(self, layer: Layer, choice: Precision) -> Mixture:
        floats = {k: v for k, v in self.simulation.floats.items() if k not in layer.nodes}
        own = {} if choice == layer.precision else dict.fromkeys(layer.nodes, choice)
        return {**floats, **own}

    def _options(self, layer: Layer) -> list[Option]:
        noises = self.noise[layer.name]
        choices = [layer.precision, *(each for each in noises if each != layer.precision)]
        return [Option(each, self._cost(layer, each), noises[each]) for each in choices]

    def _cost(self, layer: Layer, choice: Precision) -> float:
        """What is to be spared, and a little of the other, which decides among equals."""
        size, latency = layer.weight_bytes(choice), milliseconds(self.costs, layer, choice)
        return size + latency if self.budget.spare == "size" else latency + size * READING

    def accurate(self) -> tuple[Candidate, int]:
        """The cheapest choice that is accurate enough; else the most accurate one."""
        if self._is_accurate(self.start):
            return self.start, 0
        if self.budget.sqnr is None:
            count = self._halved()
        else:
            self.steps, count = self._pruned(self._simulated(self.steps))
        chosen = self._built(count)
        for _ in range(MOST_BUILDS):
            if self._is_accurate(chosen) or count == len(self.steps):
                break
            count = min(len(self.steps), count + max(1, len(self.steps) // 8))
            chosen = self._built(count)
        return chosen, count

    def _pruned(self, count: int) -> tuple[list[Step], int]:
        """The steps in a better order: of those that were enough, what the rest makes needless
        last."""
        held = list({step.layer.name: step for step in self.steps[:count]}.values())
        mixtures = [self._mixture([s for s in held if s is not step]) for step in held]
        noises = self.simulation.measure(mixtures, self.start.subject.data)
        harm = {id(step): noise.ratio for step, noise in zip(held, noises, strict=True)}
        held.sort(key=lambda step: -harm[id(step)] / max(self._spent(step), SMALLEST_COST))
        return [*held, *self.steps[count:]], self._simulated(held)

    def _spent(self, step: Step) -> float:
        own = self._cost(step.layer, step.layer.precision)
        return self._cost(step.layer, step.precision) - own

    def _is_accurate(self, candidate: Candidate) -> bool:
        return self.budget.is_accurate(candidate.sqnr, self._metric(candidate))

    def _metric(self, candidate: Candidate) -> float | None:
        return None if self.budget.metric is None else float(self.budget.metric(candidate.graph))

    def _simulated(self, steps: Sequence[Step]) -> int:
        """The fewest first steps that reach the SQNR in simulation; all if none do."""
        assert self.budget.sqnr is not None
        low, high = 0, len(steps)  # low is not enough, high is or is all there is
        while high - low > 1:
            counts = sorted({low + (high - low) * i // PREFIXES for i in range(1, PREFIXES)})
            counts = [count for count in counts if low < count < high]
            mixtures = [self._mixture(steps[:count]) for count in counts]
            noises = self.simulation.measure(mixtures, self.start.subject.data)
            enough = [c for c, n in zip(counts, noises, strict=True) if n.sqnr >= self.budget.sqnr]
            high = min([high, *enough])
            low = max([low, *(count for count in counts if count < high)])
        return high

    def _halved(self) -> int:
        """The fewest steps that reach the metric, by building."""
        low, high = 0, len(self.steps)
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_accurate(self._built(middle)):
                high = middle
            else:
                low = middle
        return high

    def within_limits(self) -> tuple[Candidate, int]:
        """All steps that fit the limits, best first."""
        taken: list[Step] = []
        size, latency = self.start.size, self.start.latency
        held = {layer.name: layer.precision for layer in self.start.layers}
        skipped: set[str] = set()
        for step in self.steps:
            layer = step.layer
            more = layer.weight_bytes(step.precision) - layer.weight_bytes(held[layer.name])
            slower = milliseconds(self.costs, layer, step.precision) - milliseconds(
                self.costs, layer, held[layer.name]
            )
            if layer.name in skipped or not self.budget.fits(size + more, latency + slower):
                skipped.add(layer.name)
                continue
            size, latency = size + more, latency + slower
            held[layer.name] = step.precision
            taken.append(step)
        return self._fitting(taken)

    def _fitting(self, taken: list[Step]) -> tuple[Candidate, int]:
        """The steps built; borders cost too, so the last ones may have to go."""
        candidate = self._with(taken)
        for _ in range(MOST_BUILDS):
            if not taken or self.budget.fits(candidate.size, candidate.latency):
                break
            taken = taken[: -max(1, len(taken) // 4)]
            candidate = self._with(taken)
        return candidate, len(taken)

    def _built(self, count: int) -> Candidate:
        return self._with(self.steps[:count])

    def _with(self, steps: Sequence[Step]) -> Candidate:
        if not steps:
            return self.start
        config = self.start.config
        held = {step.layer.name: step for step in steps}
        rules = tuple(
            Rule(step.precision.name, node=node)
            for step in held.values()
            for node in step.layer.nodes
        )
        return self.start.subject.candidate(replace(config, rules=(*config.rules, *rules)))

    def _mixture(self, steps: Sequence[Step]) -> Mixture:
        return {node: step.precision for step in steps for node in step.layer.nodes}

    def report(self, chosen: Candidate, count: int) -> MixedReport:
        """How the choice came about."""
        precisions = {layer.name: layer.precision for layer in chosen.layers}
        rows = [
            Chosen(
                layer.place,
                layer.name,
                layer.operator,
                str(precisions.get(layer.name, layer.precision)),
                decibels(self.noise[layer.name][layer.precision]),
                layer.source,
            )
            for layer in layers_of(self.start.prepared)
            if layer.name in self.noise
        ]
        before = figures_of(self.start, self._metric(self.start))
        after = before if chosen is self.start else figures_of(chosen, self._metric(chosen))
        met = self.budget.is_accurate(after.sqnr, after.metric)
        met = met and self.budget.fits(after.size, after.latency)
        return MixedReport(tuple(rows), before, after, met, count, self.costs.source)
