"""Running programs on the same float inputs, and the figures that compare their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import nn

from fxquant.backends.base import Lowered
from fxquant.backends.tflite.interpreter import Kernels, LiteRT
from fxquant.backends.tflite.sample_inputs import flat_inputs
from fxquant.backends.tflite.sample_outputs import model_outputs

Program = Callable[[torch.Tensor], torch.Tensor]


class FileProgram:
    """A program's file in LiteRT, called with float pictures as the model is."""

    def __init__(self, lowered: Lowered, kernels: Kernels = "xnnpack", threads: int = 1) -> None:
        self.lowered = lowered
        self.runtime = LiteRT(lowered.to_bytes(), kernels=kernels, threads=threads)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        inputs = [value.numpy() for value in flat_inputs(self.lowered.graph_module, image)]
        outputs = [torch.from_numpy(value) for value in self.runtime.run(inputs).values()]
        return model_outputs(self.lowered, outputs)[0]

    def __enter__(self) -> FileProgram:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.runtime.close()


@torch.no_grad()
def run_all(program: Program | nn.Module, images: Sequence[torch.Tensor]) -> torch.Tensor:
    """The outputs for pictures of batch 1, in one tensor."""
    return torch.cat([program(image) for image in images])


def sqnr(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Signal to quantization noise in dB.

    >>> sqnr(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    20.0
    """
    noise = (found - wanted).double().norm()
    if noise == 0:
        return math.inf
    return round(float(20 * torch.log10(wanted.double().norm() / noise)), 2)


def centered_sqnr(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """The same with the mean over the pictures removed from the signal, which no picture tells."""
    noise = (found - wanted).double().norm()
    if noise == 0:
        return math.inf
    signal = (wanted - wanted.mean(0, keepdim=True)).double().norm()
    return round(float(20 * torch.log10(signal / noise)), 2)


def relative_error(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """The largest error, relative to the largest output."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """The fraction of pictures that two programs put into the same class."""
    return float((first.argmax(1) == second.argmax(1)).double().mean())
