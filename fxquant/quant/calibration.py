"""Run data through a prepared model so that its observers find the ranges.

    calibrate(prepared, loader, transform=lambda batch: batch[0])

Any iterable of inputs will do: tensors, tuples of inputs, dicts by parameter name, DataLoader
batches. Nothing of a batch is kept, and its size need not be the example's (see `batches`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import torch
from torch.fx import GraphModule

from fxquant.errors import CalibrationError
from fxquant.ir.state import state_of
from fxquant.quant.batches import BatchRunner
from fxquant.quant.settle import check_observers, fake_quantizes, flags, settle

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
    runner = BatchRunner(prepared)
    count = 0
    with _observing(prepared), _bar(progress, data, limit) as advance:
        for batch in islice(data, limit):
            runner.run(batch if transform is None else transform(batch), count)
            _check_finite(prepared)
            count += 1
            advance()
    if count == 0:
        raise CalibrationError(
            "there are no calibration data", fix="give an iterable with at least one batch"
        )
    settle(prepared)
    for _, module in fake_quantizes(prepared):
        module.switch(observing=False, quantizing=True)
    return prepared


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


def _check_finite(prepared: GraphModule) -> None:
    if int(flags(prepared)) >= 0:
        check_observers(prepared)


@contextlib.contextmanager
def _bar(progress: bool, data: Iterable[Any], limit: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; elsewhere nothing."""
    if not progress or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("calibrating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    length = len(data) if isinstance(data, Sized) else None
    total = length if limit is None or length is None else min(limit, length)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("calibrating", total=total)
        yield lambda: bar.advance(task)
