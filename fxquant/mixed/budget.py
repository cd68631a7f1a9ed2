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
from typing import Any, Literal

from torch import nn

from fxquant.errors import ConfigError

Metric = Callable[[nn.Module], float]
Spared = Literal["latency", "size"]


class BudgetError(ConfigError):
    """No choice of precisions that was tried keeps the budget.

    Attributes:
        best: the choice that comes nearest, as `auto_mixed_precision` would have returned it.
    """

    best: Any = None


@dataclass(frozen=True)
class Budget:
    """The demands on a mixed precision; all that are given count.

    Attributes:
        sqnr: least signal-to-quantization-noise ratio at the output, dB.
        metric: a measure of the quantized graph, larger is better.
        least: the least value of the metric.
        size: most bytes of weights and biases.
        latency: most milliseconds by the target's cost table, a proxy.
        spare: what to spend least of for accuracy: `latency` or `size`; None: what is limited, and
            latency where nothing or both are.
    """

    sqnr: float | None = None
    metric: Metric | None = None
    least: float | None = None
    size: int | None = None
    latency: float | None = None
    spare: Spared | None = None

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
        if self.spare not in (None, "latency", "size"):
            raise ConfigError(f"spare={self.spare!r} is not known", fix="use latency or size")

    @property
    def spared(self) -> Spared:
        """What to spend least of."""
        only_size = self.size is not None and self.latency is None
        return self.spare or ("size" if only_size else "latency")

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

    def shortfalls(self, sqnr: float, metric: float | None, size: int, latency: float) -> list[str]:
        """What is not kept, each with what was asked and what is.

        >>> Budget(sqnr=40, size=1000).shortfalls(31.25, None, 900, 0.0)
        ['at least 40 dB are asked, 31.2 dB are reached']
        """
        lines = []
        if self.sqnr is not None and sqnr < self.sqnr:
            lines.append(f"at least {self.sqnr:g} dB are asked, {sqnr:.1f} dB are reached")
        if self.least is not None and metric is not None and metric < self.least:
            lines.append(f"a metric of {self.least:g} is asked, {metric:.4g} is reached")
        if self.size is not None and size > self.size:
            lines.append(f"at most {self.size:,} bytes are asked, it takes {size:,}")
        if self.latency is not None and latency > self.latency:
            lines.append(f"at most {self.latency:g} ms are asked, it takes {latency:.3g} ms")
        return lines
