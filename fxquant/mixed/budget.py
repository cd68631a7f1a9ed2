"""What a mixed precision must keep to: accuracy, size, or time.

Budget(sqnr=30)                              at least 30 dB at the output, as fast as can be
Budget(sqnr=30, spare="size")                … in the smallest file
Budget(metric=accuracy, least=0.97)          the user's own measure of the quantized graph
Budget(size=300_000)                         the most accurate of at most so many bytes of weights
Budget(latency=2.5)                          … of at most so many milliseconds by the target's table
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from fxquant.errors import ConfigError

Metric = Callable[[nn.Module], float]
Spared = Literal["latency", "size"]


@dataclass(frozen=True)
class Budget:
    """The demands on a mixed precision; all that are given count.

    Attributes:
        sqnr: least signal-to-quantization-noise ratio at the output, dB.
        metric: a measure of the quantized graph, larger is better.
        least: the least value of the metric.
        size: most bytes of weights and biases.
        latency: most milliseconds by the target's cost table, a proxy.
        spare: what to spend least of for accuracy: `latency` or `size`.
    """

    sqnr: float | None = None
    metric: Metric | None = None
    least: float | None = None
    size: int | None = None
    latency: float | None = None
    spare: Spared = "latency"

    def __post_init__(self) -> None:
        if (self.metric is None) != (self.least is None):
            raise ConfigError(
                "a metric and the least value of it belong together",
                fix="Budget(metric=function, least=0.97)",
            )
        if all(each is None for each in (self.sqnr, self.metric, self.size, self.latency)):
            raise ConfigError(
                "the budget demands nothing",
                fix="give sqnr=, metric= with least=, size= or latency=",
            )
        if self.spare not in ("latency", "size"):
            raise ConfigError(f"spare={self.spare!r} is not known", fix="use latency or size")

    @property
    def demands_accuracy(self) -> bool:
        """Whether a least accuracy is given."""
        return self.sqnr is not None or self.metric is not None

    def is_accurate(self, sqnr: float, metric: float | None) -> bool:
        """Whether the accuracy is enough."""
        enough = self.sqnr is None or sqnr >= self.sqnr
        return enough and (self.least is None or (metric is not None and metric >= self.least))

    def fits(self, size: int, latency: float) -> bool:
        """Whether size and time are within the limits."""
        small = self.size is None or size <= self.size
        return small and (self.latency is None or latency <= self.latency)
