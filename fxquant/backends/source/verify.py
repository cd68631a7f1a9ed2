"""Run the generated file and compare its results with those of the graph that it came from."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fxquant.backends.base import Lowered
from fxquant.backends.source.loading import load_model
from fxquant.errors import Problem, VerifyError
from fxquant.tracing.signature import collect


@dataclass
class SourceReport:
    """What a comparison found.

    Attributes:
        samples: how many inputs were run.
        differences: what is not equal, bit for bit.
    """

    samples: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every result was equal."""
        return not self.differences

    def check(self) -> None:
        """Raise where something differs.

        Raises:
            VerifyError: the file does not compute what the graph computes.
        """
        if not self.ok:
            problems = [Problem(each) for each in self.differences]
            what = "the file does not compute what the graph computes"
            raise VerifyError(what, problems=problems)

    def render(self) -> str:
        """The finding as text."""
        word = "equal, bit for bit" if self.ok else "; ".join(self.differences)
        return f"{self.samples} samples: {word}"


def verify(lowered: Lowered, data: Iterable[Any], path: Path) -> SourceReport:
    """Compare on data: tensors, tuples of inputs, or inputs by name."""
    model = load_model(path)
    report = SourceReport()
    for sample in data:
        args, kwargs = _call(sample)
        graph = lowered.graph_module
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _kept(graph), _kept(model):
            wanted = _run(graph, args, kwargs)
            found = _run(model, args, kwargs)
            report.differences += _differences(report.samples, wanted, found)
        report.samples += 1
    return report


@contextlib.contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Buffers that a call writes have their values back afterwards."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _call(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(sample, Mapping):
        return (), dict(sample)
    return (tuple(sample) if isinstance(sample, list | tuple) else (sample,)), {}


def _run(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Results of a call with inputs of its own, since models may write into them."""
    torch.manual_seed(0)
    args, kwargs = copy.deepcopy((args, kwargs))
    _, tensors = collect(model(*args, **kwargs), "result")
    return [tensor for _, tensor in tensors]


def _differences(number: int, wanted: list[Tensor], found: list[Tensor]) -> list[str]:
    if len(wanted) != len(found):
        return [f"sample {number}: {len(found)} results instead of {len(wanted)}"]
    return [
        f"sample {number}, result {index}: {_distance(left, right)}"
        for index, (left, right) in enumerate(zip(wanted, found, strict=True))
        if not _equal(left, right)
    ]


def _equal(left: Tensor, right: Tensor) -> bool:
    same = left.shape == right.shape and left.dtype == right.dtype
    return same and torch.equal(left.nan_to_num(), right.nan_to_num())


def _distance(left: Tensor, right: Tensor) -> str:
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{right.dtype} {list(right.shape)} instead of {left.dtype} {list(left.shape)}"
    return f"off by {float((left.double() - right.double()).abs().max()):.3g}"
