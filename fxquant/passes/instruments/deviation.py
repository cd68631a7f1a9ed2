"""How far two values are apart: as a number, or as a word where no number says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from fxquant.passes.base import Semantics


@dataclass(frozen=True)
class Deviation:
    """How far two results are apart.

    Attributes:
        error: largest absolute difference relative to the largest magnitude of the first result.
        what: what is different where no number says it (shape, dtype, structure).
    """

    error: float
    what: str = ""

    def within(self, semantics: Semantics) -> bool:
        """Whether a pass with that contract may deviate so."""
        if self.what:
            return False
        return semantics.kind == "changes" or self.error <= semantics.tolerance

    def __str__(self) -> str:
        return self.what or f"relative error {self.error:.3g}"


def is_quantized(value: Any) -> TypeGuard[Any]:
    """Whether a value is integers that stand for reals (a backend's `QTensor`)."""
    return isinstance(value, tuple) and hasattr(value, "real") and hasattr(value, "zero_point")


def real(value: Any) -> Any:
    """The reals that a value stands for, in lists and tuples too."""
    if is_quantized(value):
        return value.real()
    if isinstance(value, list | tuple):
        return [real(each) for each in value]
    return value


def deviation(first: Any, second: Any) -> Deviation:
    """How far two results, nested alike, are apart."""
    first, second = real(first), real(second)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return _tensor_deviation(first, second)
    if isinstance(first, list) and isinstance(second, list):
        if len(first) != len(second):
            return Deviation(float("inf"), f"{len(first)} values against {len(second)}")
        parts = [deviation(a, b) for a, b in zip(first, second, strict=True)]
        return max(parts, key=lambda part: (bool(part.what), part.error), default=Deviation(0.0))
    same = type(first) is type(second) and first == second
    return Deviation(0.0) if same else Deviation(float("inf"), f"{first!r} against {second!r}")


def _tensor_deviation(first: Tensor, second: Tensor) -> Deviation:
    if first.shape != second.shape or first.dtype != second.dtype:
        what = f"{_kind(first)} against {_kind(second)}"
        return Deviation(float("inf"), what)
    if first.numel() == 0 or torch.equal(first, second):
        return Deviation(0.0)
    return Deviation(largest_gap(first, second) / (magnitude(first) or 1.0))


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def largest_gap(first: Tensor, second: Tensor) -> float:
    """The largest absolute difference; NaN against NaN and infinity against itself are equal."""
    a, b = first.double(), second.double()
    same = (a == b) | (a.isnan() & b.isnan())
    worst = torch.where(same, torch.zeros_like(a), (a - b).abs()).max().item()
    return float("inf") if worst != worst else worst


def magnitude(value: Tensor) -> float:
    """The largest finite absolute value."""
    finite = value.double()[value.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0
