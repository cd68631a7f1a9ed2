"""One row of the error report: a layer, its errors, its grid and what it had to hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxquant.quant.error_report.sums import ErrorSums

CLIPPED = 1e-3
"""The share of clipped values from which clipping is named as a cause."""


class Grid(NamedTuple):
    """The reals that a value's integers stand for."""

    low: float
    high: float
    step: float


@dataclass
class LayerError:
    """The error that quantization makes in one layer.

    Attributes:
        node: name of the operator in the graph, as rules and `keep_float` take it.
        operator: what it computes, with the activation that is fused into it.
        module: path of the user's module.
        precision: what the layer computes in.
        reason: why it stays in float; empty for quantized layers.
        source: the user's line.
        alone: error with only this layer quantized, on the float model's inputs.
        cumulative: error with all layers before quantized too.
        weights: error with only this layer's weights quantized; None where it has none.
        grid: the range that the integers of the result cover, and their step; None where there
            are none.
        least, most: the smallest and largest float value.
        clipped: how many float values lie outside that range.
        share: this layer's part of the sum of all layers' noise-to-signal alone.
    """

    node: str
    operator: str
    module: str = ""
    precision: str = "float32"
    reason: str = ""
    source: str = ""
    alone: ErrorSums = field(default_factory=ErrorSums)
    cumulative: ErrorSums = field(default_factory=ErrorSums)
    weights: ErrorSums | None = None
    grid: Grid | None = None
    least: float = math.inf
    most: float = -math.inf
    clipped: int = 0
    share: float = 0.0

    def see(self, value: Tensor) -> None:
        """Note the extremes of a float value, and what its grid cuts off."""
        if not value.numel():
            return
        least, most = (float(each) for each in torch.aminmax(value))
        self.least, self.most = min(self.least, least), max(self.most, most)
        if self.grid is None:
            return
        low, high, half = self.grid.low, self.grid.high, self.grid.step / 2
        if least < low - half or most > high + half:
            self.clipped += int(((value < low - half) | (value > high + half)).sum())

    @property
    def quantized(self) -> bool:
        """Whether the layer computes in less than float32."""
        return self.precision != "float32"

    @property
    def clipped_share(self) -> float:
        """The share of values that the range cuts off."""
        return self.clipped / self.alone.count if self.alone.count else 0.0

    @property
    def cause(self) -> str:
        """What makes most of the layer's own error: `weights`, `clipping` or `activations`."""
        if self.alone.noise == 0:
            return ""
        if self.weights is not None and self.weights.noise > 0.5 * self.alone.noise:
            return "weights"
        return "clipping" if self.clipped_share > CLIPPED else "activations"

    @property
    def advice(self) -> str:
        """What can be done about the layer, in the order of cost."""
        return ADVICE.get(self.cause, "")

    def to_dict(self) -> dict[str, Any]:
        """The row as flat, plain data, for a data frame or JSON."""
        row: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("node", "operator", "module", "precision", "reason", "source")
        }
        for prefix, sums in (("alone", self.alone), ("cumulative", self.cumulative)):
            row |= {f"{prefix}_{name}": getattr(sums, name) for name in MEASURES}
        row["weights_sqnr_db"] = None if self.weights is None else self.weights.sqnr_db
        grid = self.grid or (None, None, None)
        row |= dict(zip(("low", "high", "step"), grid, strict=True))
        row |= {"least": self.least, "most": self.most}
        row |= {"clipped": self.clipped_share, "share": self.share, "cause": self.cause}
        return row


MEASURES = ("sqnr_db", "cosine", "max_abs")

ADVICE = {
    "weights": "refine_rounding(prepared, data), more bits for its weights, or QAT",
    "clipping": "the observer minmax for its result, or more calibration data like the real ones",
    "activations": "int16x8 or float32 by a rule, or equalize=True",
}
