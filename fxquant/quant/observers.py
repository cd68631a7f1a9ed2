"""Observers find the range of a value from the data that pass by.

State is bounded whatever the number of samples, and no batch waits for the host: everything, a
flag for NaN and infinity included, is kept in tensors. Two observers of one kind merge, so that
ranks or threads can observe apart; the state is a plain `state_dict`.

    minmax           smallest and largest value
    headroom         twice as far: for 16 bits, which can afford it
    moving_average   smallest and largest value of each batch, averaged exponentially
    percentile       cuts a fixed share of the data at both ends
    entropy          least divergence of the quantized distribution from the data's
    mse              least expected squared error of quantize and dequantize (see `search`)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fxquant.errors import CalibrationError, ConfigError, RegistrationError
from fxquant.quant import histogram as histograms
from fxquant.quant.arithmetic import Parameters, affine_parameters, symmetric_parameters
from fxquant.quant.entropy import least_divergence
from fxquant.quant.histogram import Histogram, Sample
from fxquant.quant.search import least_squares
from fxquant.quant.spec import QuantSpec


class Observer(nn.Module):
    """Base of observers: exact extremes, a count of batches, the first batch that was not finite.

    Args:
        spec: what the observed value will be quantized to.
        channels: number of channels along `spec.axis`; ignored per tensor.
    """

    low: Tensor
    high: Tensor
    batches: Tensor
    bad_batch: Tensor

    def __init__(self, spec: QuantSpec, channels: int = 1) -> None:
        super().__init__()
        self.spec = spec
        shape = () if spec.axis is None else (channels,)
        self.register_buffer("low", torch.full(shape, torch.inf))
        self.register_buffer("high", torch.full(shape, -torch.inf))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("bad_batch", torch.full((), -1, dtype=torch.int64))

    @property
    def seen(self) -> bool:
        """Whether any value has passed."""
        return int(self.batches) > 0

    def forward(self, value: Tensor) -> Tensor:
        """Observe a value and return it unchanged."""
        if value.numel():
            self.observe(value.detach())
        return value

    def observe(self, value: Tensor) -> None:
        """Take a batch into the state."""
        low, high = self._extremes(value)
        if low.device.type == "cpu" and low.dim() == 0:
            # Comparing numbers costs a tenth of what comparing tensors does.
            if not math.isfinite(float(high) - float(low)) and int(self.bad_batch) < 0:
                self.bad_batch.copy_(self.batches)
        else:
            wrong = ~torch.isfinite(high.double() - low.double()).all() & (self.bad_batch < 0)
            self.bad_batch.copy_(torch.where(wrong, self.batches, self.bad_batch))
        self.update(value, low, high)
        self.batches.add_(1)

    def update(self, value: Tensor, low: Tensor, high: Tensor) -> None:
        """Take a batch with known extremes into the range."""
        torch.minimum(self.low, low, out=self.low)
        torch.maximum(self.high, high, out=self.high)

    def _extremes(self, value: Tensor) -> tuple[Tensor, Tensor]:
        if self.spec.axis is None:
            low, high = torch.aminmax(value)
        else:
            rows = value.transpose(0, self.spec.axis).flatten(1)
            low, high = rows.amin(1), rows.amax(1)  # vectorized, unlike aminmax along a dimension
        return low.float(), high.float()

    def reset(self) -> None:
        """Forget everything."""
        fresh = type(self)(self.spec, self.low.numel())
        for name, buffer in fresh.named_buffers():
            setattr(self, name, buffer.to(self.low.device))

    def range(self) -> tuple[Tensor, Tensor]:
        """The range that the integers should cover."""
        return self.low, self.high

    def parameters_of(self, spec: QuantSpec | None = None) -> Parameters:
        """Scale and zero point for what was seen.

        Raises:
            CalibrationError: nothing was seen, or something not finite.
        """
        spec = spec or self.spec
        if not self.seen:
            raise CalibrationError("the observer saw nothing", fix="calibrate before converting")
        if int(self.bad_batch) >= 0:
            raise CalibrationError(f"NaN or infinity passed in batch {int(self.bad_batch)}")
        low, high = self.range()
        compute = symmetric_parameters if spec.symmetric else affine_parameters
        return compute(low, high, spec.low, spec.high)

    def tied(self, scale: Tensor) -> Tensor:
        """A scale from elsewhere, as this kind of grid wants it (see `tied_grids`)."""
        return scale

    def merge(self, other: Observer) -> None:
        """Take what another observer of the same kind has seen into this one."""
        self.low, self.high = (
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
        )
        first = torch.where(self.bad_batch < 0, other.bad_batch, self.bad_batch)
        self.bad_batch = first
        self.batches = self.batches + other.batches

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        return str(self.spec)


ObserverClass = TypeVar("ObserverClass", bound=type[Observer])
OBSERVERS: dict[str, type[Observer]] = {}


def register_observer(name: str) -> Callable[[ObserverClass], ObserverClass]:
    """Make an observer known by the name that specs use; a class decorator.

    Raises:
        RegistrationError: the name is taken.
    """

    def register(cls: ObserverClass) -> ObserverClass:
        taken = OBSERVERS.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise RegistrationError(f"the observer name {name!r} is taken by {taken.__qualname__}")
        OBSERVERS[name] = cls
        return cls

    return register


def make_observer(spec: QuantSpec, channels: int = 1) -> Observer:
    """The observer that a spec asks for.

    Raises:
        ConfigError: there is no observer of that name.
    """
    if spec.observer not in OBSERVERS:
        raise ConfigError(
            f"there is no observer {spec.observer!r}", fix=f"use {', '.join(sorted(OBSERVERS))}"
        )
    return OBSERVERS[spec.observer](spec, channels)


@register_observer("minmax")
class MinMax(Observer):
    """The smallest and the largest value seen."""


@register_observer("headroom")
class Headroom(Observer):
    """Twice the smallest and the largest value seen, for integers with steps to spare.

    One bit of 16 is worth less than not cutting what the samples did not show.
    """

    factor = 2.0

    def range(self) -> tuple[Tensor, Tensor]:
        return self.low * self.factor, self.high * self.factor


@register_observer("moving_average")
class MovingAverage(Observer):
    """Batch extremes averaged exponentially: each batch weighs `momentum`, the first one fully."""

    momentum = 0.01

    def update(self, value: Tensor, low: Tensor, high: Tensor) -> None:
        first = self.batches == 0
        self.low = torch.where(first, low, self.low + self.momentum * (low - self.low))
        self.high = torch.where(first, high, self.high + self.momentum * (high - self.high))

    def merge(self, other: Observer) -> None:
        if not other.seen:
            return
        share = other.batches / (self.batches + other.batches)
        low, high = (torch.lerp(mine, its, share) for mine, its in self._pairs(other))
        super().merge(other)
        self.low, self.high = low, high

    def _pairs(self, other: Observer) -> list[tuple[Tensor, Tensor]]:
        pairs = [(self.low, other.low), (self.high, other.high)]
        return pairs if self.seen else [(its, its) for _, its in pairs]


class HistogramObserver(Observer):
    """Base of observers that look at the distribution; per tensor only."""

    counts: Tensor
    reach: Tensor

    def __init__(self, spec: QuantSpec, channels: int = 1) -> None:
        if spec.axis is not None:
            raise ConfigError(
                f"the observer {spec.observer!r} works per tensor, not per channel",
                fix="use the observer minmax for per-channel values",
            )
        super().__init__(spec, channels)
        counts, reach = histograms.empty_histogram()
        self.register_buffer("counts", counts)
        self.register_buffer("reach", reach)

        self.pending: list[Sample] = []

    @property
    def histogram(self) -> Histogram:
        """The distribution of what was seen."""
        self.count_pending()
        return Histogram(self.counts, self.reach)

    def update(self, value: Tensor, low: Tensor, high: Tensor) -> None:
        super().update(value, low, high)
        if value.device.type == "cpu" and int(self.bad_batch) >= 0:
            return  # NaN has no bin
        self.pending.append(histograms.sampled(value))
        if sum(sample.values.numel() for sample in self.pending) >= histograms.PENDING:
            self.count_pending()

    def count_pending(self) -> None:
        """Count the samples that wait: many at once cost little more than one."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        magnitude = torch.maximum(-self.low, self.high).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
        histogram = histograms.grown(Histogram(self.counts, self.reach), magnitude)
        for step in dict.fromkeys(sample.step for sample in pending):
            values = torch.cat([sample.values for sample in pending if sample.step == step])
            histogram = histograms.counted(histogram, Sample(values, step))
        self.counts, self.reach = histogram

    def reset(self) -> None:
        self.pending = []
        super().reset()

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.count_pending()
        super()._save_to_state_dict(*args, **kwargs)

    def merge(self, other: Observer) -> None:
        assert isinstance(other, HistogramObserver)
        self.counts, self.reach = histograms.merged(self.histogram, other.histogram)
        super().merge(other)


@register_observer("percentile")
class Percentile(HistogramObserver):
    """The range without the `tail` most extreme share of the data at either end."""

    tail = 1e-5

    def range(self) -> tuple[Tensor, Tensor]:
        low, high = histograms.quantiles(self.histogram, self.tail, 1 - self.tail)
        return torch.maximum(low, self.low), torch.minimum(high, self.high)


@register_observer("mse")
class MSE(HistogramObserver):
    """The parameters of least expected squared error; never worse than minmax on the data seen."""

    def parameters_of(self, spec: QuantSpec | None = None) -> Parameters:
        spec = spec or self.spec
        whole = super().parameters_of(spec)
        return least_squares(self.histogram, whole, spec.low, spec.high, spec.symmetric)


@register_observer("entropy")
class Entropy(HistogramObserver):
    """The range whose integers keep the most of the distribution (see `entropy`)."""

    def range(self) -> tuple[Tensor, Tensor]:
        levels = self.spec.high - self.spec.low + 1
        return least_divergence(self.histogram, self.low, self.high, levels)


def state_problem(observer: Observer) -> str | None:
    """What keeps an observer from giving parameters, or None."""
    if not observer.seen:
        return "saw nothing"
    bad = int(observer.bad_batch)
    return f"saw NaN or infinity in batch {bad}" if bad >= 0 else None
