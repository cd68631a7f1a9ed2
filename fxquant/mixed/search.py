"""The search for the choice of precisions that keeps a budget.

noise of each layer alone -> steps in order of merit -> a number of them -> built and measured
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch.fx import Node

from fxquant.mixed.budget import Budget
from fxquant.mixed.candidate import Candidate, costs_of
from fxquant.mixed.layers import Layer, can_compute, layers_of
from fxquant.mixed.mixed_report import Chosen, MixedReport, figures_of
from fxquant.mixed.noise import decibels
from fxquant.mixed.probes import alone
from fxquant.mixed.simulation import Mixture, Simulation
from fxquant.mixed.steps import Option, Step, cheapest, milliseconds, steps_of
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.constraints import annotation_of
from fxquant.quant.spec import Precision

PREFIXES = 12
"""How many prefixes one pass over the data compares."""

MOST_BUILDS = 5

READING = 1e-7
"""Milliseconds to read a byte of weights from memory, at 10 GB/s."""

SMALLEST_COST = 1e-9


class Search:
    """The search from one beginning.

    Args:
        start: the model as it is at first.
        budget: what to keep to.
        tried: the precisions that a layer may have instead.
        probes: backward passes a batch that estimate the noise of layers; 0: it is measured.
    """

    def __init__(
        self, start: Candidate, budget: Budget, tried: Sequence[Precision], probes: int = 0
    ) -> None:
        self.start, self.budget = start, budget
        self.simulation = Simulation(start.prepared)
        self.costs = costs_of(start.annotated)
        nodes = {node.name: node for node in start.prepared.graph.nodes}
        self.layers = [each for each in layers_of(start.prepared) if _is_open(nodes[each.name])]
        self.noise = self._measured(tried, probes)
        options = {layer.name: self._options(layer) for layer in self.layers}
        self.base = {name: cheapest(each).precision for name, each in options.items()}
        self.steps = steps_of((each, options[each.name]) for each in self.layers)
        self.built: list[Candidate] = []

    def chosen(self) -> tuple[QuantConfig, MixedReport]:
        """The best choice, whether it keeps the budget or not."""
        chosen = self._accurate() if self.budget.demands_accuracy else self._within_limits()
        return chosen.config, self._report(chosen)

    def _measured(
        self, tried: Sequence[Precision], probes: int
    ) -> dict[str, dict[Precision, float]]:
        """The noise of each layer alone in each precision, in one pass over the data."""
        found: dict[str, dict[Precision, float]] = {layer.name: {} for layer in self.layers}
        plan: list[tuple[Layer, Precision]] = []
        for layer in self.layers:
            for choice in (layer.precision, *tried):
                if choice.form == "float":
                    found[layer.name][choice] = 0.0
                elif can_compute(self.start.prepared, layer, choice):
                    plan.append((layer, choice))
        ratios = alone(self.simulation, plan, self.start.subject.data, probes)
        for (layer, choice), ratio in zip(plan, ratios, strict=True):
            found[layer.name][choice] = ratio
        return found

    def _options(self, layer: Layer) -> list[Option]:
        noises = self.noise[layer.name]
        choices = [layer.precision, *(each for each in noises if each != layer.precision)]
        return [Option(each, self._cost(layer, each), noises[each]) for each in choices]

    def _cost(self, layer: Layer, choice: Precision) -> float:
        """What is to be spared, and a little of the other, which decides among equals."""
        size, latency = layer.weight_bytes(choice), milliseconds(self.costs, layer, choice)
        return size + latency if self.budget.spared == "size" else latency + size * READING

    def _accurate(self) -> Candidate:
        """The cheapest choice that is accurate enough; else the best within the limits, if any."""
        first = self._with(())
        if self._is_accurate(first) and self._fits(first):
            return first
        if self.budget.sqnr is None:
            count = self._halved()
        else:
            self.steps, count = self._pruned(self._simulated(self.steps))
        chosen = self._with(self.steps[:count])
        for _ in range(MOST_BUILDS):
            if self._is_accurate(chosen) or count == len(self.steps):
                break
            count = min(len(self.steps), count + max(1, len(self.steps) // 8))
            chosen = self._with(self.steps[:count])
        if not self._is_accurate(chosen) and count < len(self.steps):
            chosen = self._with(self.steps)
        if self._is_accurate(chosen):
            return chosen if self._fits(chosen) else self._nearest(chosen)
        return self._best(self.built)

    def _nearest(self, accurate: Candidate) -> Candidate:
        """Where accuracy and limits are not kept together: the best of those within the limits."""
        limited = self._within_limits()
        if self._is_accurate(limited):
            return limited
        inside = [each for each in self.built if self._fits(each)]
        return self._best(inside) if inside else accurate

    def _best(self, candidates: Iterable[Candidate]) -> Candidate:
        def quality(candidate: Candidate) -> tuple[float, float]:
            metric = self._metric(candidate)
            return (0.0 if metric is None else metric, candidate.sqnr)

        return max(candidates, key=quality)

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
        own = self._cost(step.layer, self.base[step.layer.name])
        return self._cost(step.layer, step.precision) - own

    def _is_accurate(self, candidate: Candidate) -> bool:
        return self.budget.is_accurate(candidate.sqnr, self._metric(candidate))

    def _fits(self, candidate: Candidate) -> bool:
        return self.budget.fits(candidate.size, candidate.latency)

    def _metric(self, candidate: Candidate) -> float | None:
        return None if self.budget.metric is None else candidate.metric(self.budget.metric)

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
            if self._is_accurate(self._with(self.steps[:middle])):
                high = middle
            else:
                low = middle
        return high

    def _within_limits(self) -> Candidate:
        """All steps that fit the limits, best first; borders cost too, so some may have to go."""
        first = self._with(())
        size, latency = first.size, first.latency
        held = dict(self.base)
        taken: list[Step] = []
        skipped: set[str] = set()
        for step in self.steps:
            layer, before = step.layer, held[step.layer.name]
            more = layer.weight_bytes(step.precision) - layer.weight_bytes(before)
            slower = self._milliseconds(layer, step.precision) - self._milliseconds(layer, before)
            if layer.name in skipped or not self.budget.fits(size + more, latency + slower):
                skipped.add(layer.name)
                continue
            size, latency = size + more, latency + slower
            held[layer.name] = step.precision
            taken.append(step)
        candidate = self._with(taken)
        for _ in range(MOST_BUILDS):
            if not taken or self._fits(candidate):
                break
            taken = taken[: -max(1, len(taken) // 4)]
            candidate = self._with(taken)
        return candidate if self._fits(candidate) else first

    def _milliseconds(self, layer: Layer, choice: Precision) -> float:
        return milliseconds(self.costs, layer, choice)

    def _held(self, steps: Sequence[Step]) -> dict[str, Precision]:
        """The precision of each layer after some steps."""
        return {**self.base, **{step.layer.name: step.precision for step in steps}}

    def _with(self, steps: Sequence[Step]) -> Candidate:
        """The model after some steps, built."""
        held, config = self._held(steps), self.start.config
        rules = tuple(
            Rule(choice.name, node=node)
            for layer in self.layers
            if held[layer.name] != layer.precision
            for node, choice in layer.assigned(held[layer.name]).items()
        )
        wanted = replace(config, rules=(*config.rules, *rules))
        known = next((each for each in (self.start, *self.built) if each.config == wanted), None)
        candidate = known or self.start.subject.candidate(wanted)
        if candidate not in self.built:
            self.built.append(candidate)
        return candidate

    def _mixture(self, steps: Sequence[Step]) -> Mixture:
        held = self._held(steps)
        return {
            node: choice
            for layer in self.layers
            if held[layer.name] != layer.precision
            for node, choice in layer.assigned(held[layer.name]).items()
        }

    def _foreseen(self, chosen: Candidate) -> float:
        """The SQNR that the simulation gives the choice, on the data of the search."""
        rules = {rule.node: rule for rule in chosen.config.rules}
        names = [name for layer in self.layers for name in layer.nodes if name in rules]
        mixture = {name: chosen.config.resolved(rules[name].precision) for name in names}
        (noise,) = self.simulation.measure([mixture], self.start.subject.data)
        return noise.sqnr

    def _report(self, chosen: Candidate) -> MixedReport:
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
            for layer in self.layers
        ]
        before = figures_of(self.start, self._metric(self.start))
        same = chosen is self.start
        after = before if same else figures_of(chosen, self._metric(chosen))
        met = self.budget.is_accurate(after.sqnr, after.metric)
        met = met and self.budget.fits(after.size, after.latency)
        first = {layer.name: str(layer.precision) for layer in self.layers}
        count = sum(row.precision != first[row.node] for row in rows)
        foreseen = self._foreseen(chosen)
        return MixedReport(tuple(rows), before, after, met, count, self.costs.source, foreseen)


def _is_open(node: Node) -> bool:
    """Whether no rule of the user's names the layer that a node begins."""
    annotation = annotation_of(node)
    return annotation is not None and annotation.reason == "default"
