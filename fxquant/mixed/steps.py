"""The steps from all layers cheap to all layers precise, those that help most a cost first.

For every layer, its precisions are points of cost and noise. Only those on the lower convex hull
are worth anything, and walking along it each step gives less than the one before. All layers'
steps sorted by gain per cost are therefore the greedy solution of the knapsack with several
choices an item, each step applicable after the ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fxquant.mixed.layers import Layer
from fxquant.quant.costs import CostTable, kind_of, storage
from fxquant.quant.spec import Precision


@dataclass(frozen=True)
class Option:
    """One precision of a layer: what it costs, and the noise that it adds at the output."""

    precision: Precision
    cost: float
    noise: float


@dataclass(frozen=True)
class Step:
    """A layer gets a better precision.

    Attributes:
        layer: the layer.
        precision: what it gets.
        gain: noise less at the output.
        cost: milliseconds or bytes more; may be negative.
    """

    layer: Layer
    precision: Precision
    gain: float
    cost: float

    @property
    def merit(self) -> float:
        """Gain per cost; what costs nothing goes first."""
        return self.gain / self.cost if self.cost > 0 else math.inf


def milliseconds(table: CostTable, layer: Layer, precision: Precision) -> float:
    """The latency proxy of a layer."""
    kind = kind_of(layer.operator, layer.macs, layer.depthwise)
    units = layer.macs or layer.elements
    return table.milliseconds(kind, storage(precision), units)


def steps_of(options: Iterable[tuple[Layer, Sequence[Option]]]) -> list[Step]:
    """All worthwhile steps in the order in which to take them.

    Args:
        options: the precisions of each layer; the first is the one it has.
    """
    steps = [step for layer, choices in options for step in _walk(layer, choices)]
    return sorted(steps, key=lambda step: (-step.merit, -step.gain))


def cheapest(choices: Sequence[Option]) -> Option:
    """Where a layer begins: the first option, or one that costs less for more noise."""
    own = choices[0]
    noisier = [choice for choice in choices if choice.noise >= own.noise]
    return min(noisier, key=lambda choice: choice.cost)


def _walk(layer: Layer, choices: Sequence[Option]) -> list[Step]:
    """The steps along the convex hull of one layer, from its cheapest precision."""
    steps: list[Step] = []
    now = cheapest(choices)
    rest = [choice for choice in choices if choice is not now]
    while better := [choice for choice in rest if choice.noise < now.noise]:
        following = max(better, key=lambda choice: _slope(now, choice))
        gain, cost = now.noise - following.noise, following.cost - now.cost
        steps.append(Step(layer, following.precision, gain, cost))
        now, rest = following, better
    return steps


def _slope(now: Option, choice: Option) -> tuple[float, float]:
    gain, cost = now.noise - choice.noise, choice.cost - now.cost
    return (gain / cost if cost > 0 else math.inf, gain)
