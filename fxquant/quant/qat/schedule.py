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

from collections.abc import Iterator

from torch import nn

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
