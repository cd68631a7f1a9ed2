"""Run data through a prepared model so that its observers find the ranges.

    calibrate(prepared, loader, transform=lambda batch: batch[0])

Any iterable of inputs will do: tensors, tuples of inputs, dicts by parameter name, DataLoader
batches. It is read once; batches need not be of the example's size (see `batches`).

1. The first samples show how wide each channel is, and channels are equalized (`equalization`);
   if asked for, what lies far above 0 is absorbed (`bias_absorption`).
2. All data pass the observers; a few samples are kept (`reservoir`).
3. Weights of four bits are rounded by what they do to each layer's output on the samples kept
   (`weight_rounding`).
4. The samples kept show how far quantization shifts each channel of the other layers, and biases
   take it back (`bias_correction`).

`QuantConfig(equalize=False, refine_rounding=False, correct_bias=False)` leaves 1, 3 and 4 out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch.fx import GraphModule

from fxquant.errors import CalibrationError
from fxquant.ir.state import state_of
from fxquant.quant.batches import BatchRunner, Call
from fxquant.quant.bias_absorption import absorb_high_bias
from fxquant.quant.bias_correction import correct_bias_on, restore_bias
from fxquant.quant.config import QuantConfig
from fxquant.quant.equalization.equalize import equalize_channels
from fxquant.quant.progress import progress_bar
from fxquant.quant.reservoir import SAMPLES, Reservoir
from fxquant.quant.settle import (
    check_observers,
    fake_quantizes,
    first_bad,
    flags,
    settle,
)
from fxquant.quant.spec import QuantSpec
from fxquant.quant.weight_rounding import has_few_bits, refine_rounding_on, restore_weights

Transform = Callable[[Any], Any]


def calibrate(
    prepared: GraphModule,
    data: Iterable[Any],
    *,
    progress: bool = True,
    transform: Transform | None = None,
    limit: int | None = None,
) -> GraphModule:
    """Find the range of every observed value, and switch to simulated quantization.

    Args:
        prepared: what `prepare` returned; its observers are filled in place.
        data: batches of inputs.
        progress: show a progress bar, if the output is a terminal.
        transform: makes the inputs from a batch, e.g. drops labels.
        limit: the number of batches to use; None uses all.

    Returns:
        The prepared graph itself.

    Raises:
        CalibrationError: there are no data, NaN or infinity passed, or an observer saw nothing.
        InputError: a batch does not fit the model's inputs.
    """
    if "observed" not in state_of(prepared).properties:
        raise CalibrationError(
            "the graph has no observers", fix="calibrate what prepare(model, …) returned"
        )
    config = state_of(prepared).config
    config = config if isinstance(config, QuantConfig) else QuantConfig()
    restore_bias(prepared)
    restore_weights(prepared)
    batches: Iterator[Any] = islice(data if transform is None else map(transform, data), limit)
    with _observing(prepared), progress_bar("calibrating", progress, data, limit) as advance:
        if (config.equalize or config.absorb_bias) and not _any_seen(prepared):
            batches = _rewritten(prepared, batches, config)
        refined = _refined(prepared, config.refine_rounding)
        kept = _observe(prepared, batches, config.correct_bias or refined is not None, advance)
    settle(prepared)
    for _, module in fake_quantizes(prepared):
        module.switch(observing=False, quantizing=True)
    if kept is None:
        return prepared
    if refined is not None and refine_rounding_on(prepared, list(kept.calls()), refined):
        kept.runner = BatchRunner(prepared)  # the copies of the graph read the old weights
    if config.correct_bias:
        correct_bias_on(prepared, list(kept.calls()))
    return prepared


def _refined(prepared: GraphModule, asked: bool | None) -> Callable[[QuantSpec], bool] | None:
    """Which weights are to be rounded by their effect; None where there are none."""
    chosen = has_few_bits if asked is None else lambda spec: bool(asked)
    specs = [module.spec for _, module in fake_quantizes(prepared) if module.constant]
    return chosen if any(map(chosen, specs)) else None


def _any_seen(prepared: GraphModule) -> bool:
    """Whether ranges are known already; rewriting layers would make them wrong."""
    return any(module.observer.seen for _, module in fake_quantizes(prepared))


def _rewritten(prepared: GraphModule, batches: Iterator[Any], config: QuantConfig) -> Iterator[Any]:
    """Rewrite layers by the first samples; returns all batches, those included."""
    runner = BatchRunner(prepared)
    first: list[Any] = []
    calls: list[Call] = []
    samples = 0
    for number, batch in enumerate(batches):
        found = list(runner.calls(batch, number))
        first.append(batch)
        calls += found
        samples += sum(len(list(runner.samples(inputs))) for _, inputs in found)
        if samples >= SAMPLES:
            break
    with _off(prepared):
        if config.equalize:
            equalize_channels(prepared, calls)
        if config.absorb_bias:
            runner = BatchRunner(prepared)  # Copies of before read the weights of before.
            again = (call for n, batch in enumerate(first) for call in runner.calls(batch, n))
            absorb_high_bias(prepared, again)
    prepared.recompile()
    return chain(first, batches)


def _observe(
    prepared: GraphModule, batches: Iterator[Any], keep: bool, advance: Callable[[], None]
) -> Reservoir | None:
    """Let all batches pass the observers; returns some of the samples, if they are wanted."""
    runner = BatchRunner(prepared)
    reservoir = Reservoir(runner) if keep else None
    marks = flags(prepared)
    count = 0
    for batch in batches:
        for graph, inputs in runner.calls(batch, count):
            graph(*inputs)
            if reservoir is not None:
                reservoir.offer(inputs)
        if first_bad(marks) >= 0:
            check_observers(prepared)
        count += 1
        advance()
    if count == 0:
        raise CalibrationError(
            "there are no calibration data", fix="give an iterable with at least one batch"
        )
    return reservoir


@contextlib.contextmanager
def _off(prepared: GraphModule) -> Iterator[None]:
    """No observer sees what passes inside."""
    modules = {module: module.observing for _, module in fake_quantizes(prepared)}
    for module in modules:
        module.observing = False
    try:
        yield
    finally:
        for module, observing in modules.items():
            module.observing = observing


@contextlib.contextmanager
def _observing(prepared: GraphModule) -> Iterator[None]:
    """Observers on, gradients off, evaluation mode; the model's mode is restored afterwards."""
    training = {module: module.training for module in prepared.modules()}
    for _, module in fake_quantizes(prepared):
        module.switch(observing=not module.constant, quantizing=False)
        module.assigned = False
    prepared.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in training.items():
            part.training = mode
        for _, module in fake_quantizes(prepared):
            module.observing = False
