"""When ranges follow, when values are rounded, when batch norm statistics stand still.

    schedule = QatSchedule(prepared, freeze_ranges_at=2000, freeze_batch_norms_at=1500)
    for batch in loader:
        …; optimizer.step(); schedule.step()

Nothing of this is needed: by default values are rounded from the first batch on, and ranges and
statistics follow to the end. Freezing both near the end of a training takes the last noise out
(Krishnamoorthi 2018). The functions take the prepared model, a wrapper of it (`DataParallel`, EMA),
or a part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from fxquant.errors import InputError
from fxquant.quant.qat.batch_norm import TrainedBatchNorm
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize


def track_ranges(model: nn.Module, on: bool = True) -> None:
    """Let the ranges of activations follow in training, or stand still."""
    for module in _quantizers(model):
        module.tracking = on


def quantize_values(model: nn.Module, on: bool = True) -> None:
    """Round values, or let them pass in float while ranges still follow."""
    for module in _quantizers(model):
        module.quantizing = on


def freeze_batch_norms(model: nn.Module, on: bool = True) -> None:
    """Normalize with the running statistics in training too, and leave them as they are.

    Outlives `train()` and `eval()`; gamma and beta go on learning.
    """
    for module in model.modules():
        if isinstance(module, TrainedBatchNorm):
            module.frozen = on


def reestimate_batch_norms(
    model: nn.Module, data: Iterable[Any], *, transform: Callable[[Any], Any] | None = None
) -> None:
    """Measure the statistics of batch norms again, with everything rounded as it is now.

    Args:
        model: a prepared model; its parameters and ranges are not changed.
        data: batches of inputs: tensors, or tuples of arguments.
        transform: makes the inputs from a batch, e.g. drops labels.

    Raises:
        InputError: there are no data.
    """
    norms = [module for module in model.modules() if isinstance(module, TrainedBatchNorm)]
    with torch.no_grad(), _measuring(model, norms):
        count = 0
        for batch in data:
            inputs = batch if transform is None else transform(batch)
            model(*(inputs if isinstance(inputs, list | tuple) else (inputs,)))
            count += 1
    if not count:
        raise InputError("there are no data to measure", fix="give an iterable with a batch")


@contextlib.contextmanager
def _measuring(model: nn.Module, norms: list[TrainedBatchNorm]) -> Iterator[None]:
    """Only batch norms in train mode, averaging all batches alike; everything back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    settings = [(norm.momentum, norm.frozen) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.frozen = None, False
        norm.train()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for norm, (momentum, frozen) in zip(norms, settings, strict=True):
            norm.momentum, norm.frozen = momentum, frozen


def _quantizers(model: nn.Module) -> Iterator[TrainedFakeQuantize]:
    return (module for module in model.modules() if isinstance(module, TrainedFakeQuantize))


class QatSchedule:
    """Switches a model at given steps; `step()` is called after each step of the optimizer.

    Args:
        model: a prepared model, or a wrapper of it.
        quantize_from: the step from which values are rounded.
        freeze_ranges_at: the step from which the ranges of activations stand still; None: never.
        freeze_batch_norms_at: the step from which statistics stand still; None: never.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        quantize_from: int = 0,
        freeze_ranges_at: int | None = None,
        freeze_batch_norms_at: int | None = None,
    ) -> None:
        self.model, self.steps = model, 0
        self.quantize_from = quantize_from
        self.freeze_ranges_at = freeze_ranges_at
        self.freeze_batch_norms_at = freeze_batch_norms_at
        self.apply()

    def step(self) -> None:
        """One step was made."""
        self.steps += 1
        if self.steps in (self.quantize_from, self.freeze_ranges_at, self.freeze_batch_norms_at):
            self.apply()

    def apply(self) -> None:
        """Bring the model into the state of the present step."""
        quantize_values(self.model, self.steps >= self.quantize_from)
        track_ranges(self.model, not self._reached(self.freeze_ranges_at))
        freeze_batch_norms(self.model, self._reached(self.freeze_batch_norms_at))

    def _reached(self, step: int | None) -> bool:
        return step is not None and self.steps >= step

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint needs of it."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a checkpoint was."""
        self.steps = state["steps"]
        self.apply()
