"""Choose the factors of one component: the candidate with the least predicted noise.

A value stored in integers has noise of one size on all of its channels, set by its widest channel.
A layer that reads it adds the noise of its weights, whose size in each row is set by the widest
column, in proportion to the signal in the others. Widening a quiet channel of the value lowers the
first and may raise the second; both are predicted from ranges and powers, and no factors at all is
always a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Factors are (widest range / range) to these powers."""

MOST = 64.0
"""The largest factor."""

STEPS = 255


class Stored(NamedTuple):
    """A value stored in integers: its channels' factor numbers and ranges."""

    factor: Tensor
    low: Tensor
    high: Tensor


class Reader(NamedTuple):
    """A layer that ends factors.

    Attributes:
        factor: factor number per input channel.
        power: mean square per input channel.
        squares: sum of squared weights of each channel, [groups, 1, channels per group].
        largest: largest magnitude of weights, [groups, rows, channels per group].
        taps: weights per row and channel.
        noise: how many of the component's stored values come before, whose noise it reads.
    """

    factor: Tensor
    power: Tensor
    squares: Tensor
    largest: Tensor
    taps: int
    noise: int


@dataclass
class Component:
    """Everything that the factors of one set of tied channels touch.

    Attributes:
        members: the factor numbers.
        most: upper bound per factor number (all factors of the graph).
        stored, readers: in the order of the graph.
    """

    members: Tensor
    most: Tensor
    stored: list[Stored] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)


def chosen(component: Component) -> Tensor | None:
    """The best factors, one per factor number of the graph; None if they would not help."""
    size = component.most.numel()
    least, best = predicted_noise(component, torch.ones(size).double()), None
    spread = _spread(component)
    for strength in STRENGTHS:
        factors = torch.ones(size).double()
        wanted = (spread**strength).clamp(1.0, MOST)
        factors[component.members] = torch.minimum(wanted, component.most)[component.members]
        noise = predicted_noise(component, factors)
        if noise < least:
            least, best = noise, factors
    return best


def _spread(component: Component) -> Tensor:
    """Widest range of a channel / range of the channel, over all stored values."""
    square = torch.zeros(component.most.numel()).double()
    for value in component.stored:
        reach = torch.maximum(-value.low, value.high)
        square.scatter_reduce_(0, value.factor, reach.square(), "sum")
    reach = square.sqrt()
    return reach.max() / reach.clamp(min=reach.max() / MOST)


def predicted_noise(component: Component, factors: Tensor) -> float:
    """The noise that all readers put out, each relative to its signal."""
    steps = [_step(value, factors) ** 2 / 12 for value in component.stored]
    return sum(_noise(reader, factors, sum(steps[: reader.noise])) for reader in component.readers)


def _step(value: Stored, factors: Tensor) -> float:
    own = factors[value.factor]
    return float(((value.high * own).max() - (value.low * own).min()) / STEPS)


def _noise(reader: Reader, factors: Tensor, variance: float) -> float:
    own = factors[reader.factor].view_as(reader.squares)
    power = reader.power.view_as(own)
    values = variance * (reader.squares / own**2).sum()
    step = (reader.largest / own).amax(2) / 127
    signals = (own**2 * power).sum((1, 2))
    weights = ((step**2 / 12).sum(1) * signals).sum() * reader.taps
    signal = (reader.squares * power).sum()
    return float((values + weights) / signal) if signal > 0 else 0.0
