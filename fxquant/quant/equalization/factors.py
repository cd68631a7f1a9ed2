"""Choose the factors of one component: the candidate with the least predicted noise.

A value stored in integers has noise of one size on all of its channels, set by its widest channel.
A layer that reads it adds the noise of its weights, whose size in each row is set by the widest
column, in proportion to the signal in the others. Widening a quiet channel of the value lowers the
first and may raise the second; both are predicted from ranges and powers, and no factors at all is
always a candidate. Where several values share factors, as along residual connections, no simple
rule fits them all, and the best candidate is refined by gradient descent on the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Factors are (widest range / range) to these powers."""

MOST = 64.0
"""The largest factor."""

STEPS = 255

REFINEMENTS, RATE, DECAY = 40, 0.07, 0.95
"""Steps of the descent, and how far each goes."""

ROWS = 48
"""About how many rows of a layer the descent looks at."""


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
        squares: sum of squared weights, [rows, channels per group] for each group.
        largest: largest magnitude of weights, likewise.
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
        only_widens: no factor may be below 1: a clamp would cut less than it did.
        stored, readers: in the order of the graph.
    """

    members: Tensor
    most: Tensor
    only_widens: bool = False
    stored: list[Stored] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)


def chosen(component: Component) -> Tensor | None:
    """The best factors, one per factor number of the graph; None if they would not help."""
    nothing = torch.ones_like(component.most)
    best = min([nothing, *_candidates(component)], key=lambda f: float(noise(component, f)))
    if len(component.stored) > 1 and float(noise(component, best)) > 0:
        best = _refined(component, best)
    return None if best is nothing else best


def _candidates(component: Component) -> list[Tensor]:
    spread = _spread(component)
    wanted = ((spread**strength).clamp(1.0, MOST) for strength in STRENGTHS)
    return [_allowed(component, factors) for factors in wanted]


def _allowed(component: Component, factors: Tensor) -> Tensor:
    """The factors within their bounds, 1 outside of the component."""
    least = 1.0 if component.only_widens else 1 / MOST
    bounded = torch.minimum(factors.clamp(least, MOST), component.most)
    result = torch.ones_like(factors)
    result[component.members] = bounded[component.members]
    return result


def _refined(component: Component, start: Tensor) -> Tensor:
    """Gradient descent on the logarithms of factors; the best that was met."""
    thinned = replace(component, readers=[_thinned(reader) for reader in component.readers])
    best, least = start, float(noise(thinned, start))
    logarithms = start.log().requires_grad_()
    optimizer = torch.optim.Adam([logarithms], lr=RATE)
    for step in range(REFINEMENTS):
        optimizer.param_groups[0]["lr"] = RATE * DECAY**step
        optimizer.zero_grad()
        with torch.enable_grad():
            noise(thinned, logarithms.exp()).log().backward()
        optimizer.step()
        factors = _allowed(component, logarithms.detach().exp())
        logarithms.data = factors.log()
        found = float(noise(thinned, factors))
        if found < least:
            best, least = factors, found
    return best if float(noise(component, best)) < float(noise(component, start)) else start


def _thinned(reader: Reader) -> Reader:
    """The reader with fewer rows: the descent needs no more to see where it goes."""
    step = max(1, reader.squares.shape[1] // ROWS)
    return reader._replace(squares=reader.squares[:, ::step], largest=reader.largest[:, ::step])


def _spread(component: Component) -> Tensor:
    """Widest range of a channel / range of the channel, over all stored values."""
    square = torch.zeros(component.most.numel()).double()
    for value in component.stored:
        reach = torch.maximum(-value.low, value.high)
        square.scatter_reduce_(0, value.factor, reach.square(), "sum")
    reach = square.sqrt()
    return reach.max() / reach.clamp(min=reach.max() / MOST)


def noise(component: Component, factors: Tensor) -> Tensor:
    """The noise predicted for all readers, each relative to its signal."""
    steps = torch.stack([_step(value, factors) for value in component.stored])
    variances = torch.cat([torch.zeros(1), (steps**2 / 12).cumsum(0)])
    parts = [_read_noise(reader, factors, variances[reader.noise]) for reader in component.readers]
    return torch.stack(parts).sum()


def _step(value: Stored, factors: Tensor) -> Tensor:
    own = factors[value.factor]
    return ((value.high * own).amax() - (value.low * own).amin()) / STEPS


def _read_noise(reader: Reader, factors: Tensor, variance: Tensor) -> Tensor:
    own = factors[reader.factor].view(reader.squares.shape[0], 1, -1)
    power = reader.power.view_as(own)
    values = variance * (reader.squares / own**2).sum()
    step = (reader.largest / own).amax(2, keepdim=True) / 127
    weights = (step**2 / 12 * (own**2 * power)).sum() * reader.taps
    signal = (reader.squares * power).sum()
    return torch.where(signal > 0, (values + weights) / signal, 0.0)
