"""What `fxquant convert` does: the stages of a compile one by one, each shown as it runs.

trace, passes → calibrate → freeze → lower → verify in the runtime → compare with torch → write
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

import fxquant
from fxquant.backends.base import IoDtype, IoLayout, Lowered, Require
from fxquant.backends.tflite.sample_outputs import run_graph
from fxquant.cli.calibration_data import CalibrationData
from fxquant.cli.input_spec import Call, InputSpec, random_call
from fxquant.cli.model_source import failure_of
from fxquant.cli.stages import Stages
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig

PROBES = 8  # calls on which the result is compared with torch


@dataclass
class Conversion:
    """One model on its way to a file.

    Attributes:
        model: the user's model, in eval mode.
        specs: its inputs.
        data: what it is calibrated on, and compared with torch on.
        pipeline: the passes up to the observers, or None for the default ones.
        backend: the target's name.
        stages: shows what runs.
    """

    model: nn.Module
    specs: Sequence[InputSpec]
    data: CalibrationData | None = None
    pipeline: Pipeline | None = None
    backend: str = "tflite"
    stages: Stages = field(default_factory=Stages)

    def calls(self, count: int) -> Iterator[Call]:
        """Real inputs where there are data, random ones otherwise."""
        for number in range(count if self.data is None else min(count, len(self.data))):
            yield random_call(self.specs, number) if self.data is None else self.data.call(number)

    def try_model(self) -> None:
        """Calls the model once, so that a mistake of the user's is told from one of ours.

        Raises:
            InputError: the model fails on its inputs.
        """
        call = next(self.calls(1))
        try:
            with self.stages.stage("try model"), torch.no_grad():
                self.model(*call.args, **call.kwargs)
        except Exception as error:
            inputs = " ".join(f"--input {spec}" for spec in self.specs)
            raise failure_of(f"calling the model with {inputs}", error) from error

    def float(self) -> GraphModule:
        """The core graph in float."""
        example = next(self.calls(1))
        with self.stages.stage("trace"):
            traced = fxquant.trace(self.model, example.args, kwargs=example.kwargs)
        with self.stages.stage("passes"):
            return (self.pipeline or Pipeline.default("float"))(traced)

    def quantized(self, config: QuantConfig) -> GraphModule:
        """The core graph, calibrated where there are data, and frozen."""
        example = next(self.calls(1))
        with self.stages.stage("prepare"):
            prepared = fxquant.prepare(
                self.model,
                example.args,
                config,
                kwargs=example.kwargs,
                pipeline=self.pipeline,
                backend=self.backend,
            )
        if self.data is not None:
            with self.stages.stage("calibrate", own_progress=True):
                fxquant.calibrate(prepared, self.data)
        with self.stages.stage("freeze"):
            return fxquant.convert(prepared)

    def lower(
        self,
        core: GraphModule,
        io_layout: IoLayout,
        io_dtype: IoDtype | None,
        require: Require | None,
    ) -> Lowered:
        """The program with these borders."""
        with self.stages.stage("lower"):
            return fxquant.lower(
                core, self.backend, io_layout=io_layout, io_dtype=io_dtype, require=require
            )

    def verify(self, lowered: Lowered) -> None:
        """Runs the file on one call and compares every value with the last graph's.

        Raises:
            VerifyError: they differ.
        """
        with self.stages.stage("verify"):
            call = next(self.calls(1))
            fxquant.verify(lowered, [call.kwargs or call.args]).check()

    def compare(self, lowered: Lowered) -> None:
        """Puts the error of the program against the model into its report."""
        with self.stages.stage("compare"), torch.no_grad():
            pairs = [self._outputs(lowered, call) for call in self.calls(PROBES)]
        wanted, found = (torch.cat(side) for side in zip(*pairs, strict=True))
        lowered.report.error = error_figures(wanted, found)

    def _outputs(self, lowered: Lowered, call: Call) -> tuple[torch.Tensor, torch.Tensor]:
        """All outputs of the model and of the program for one call, each as one flat tensor."""
        wanted = tensors_of(self.model(*call.args, **call.kwargs))
        if self.backend == "tflite":  # whose borders need not be the model's
            return _flat(wanted), _flat(run_graph(lowered, call.kwargs or call.args))
        return _flat(wanted), _flat(tensors_of(lowered.graph_module(*call.args, **call.kwargs)))

    def save(self, lowered: Lowered, path: Path) -> None:
        """Writes the file, whole or not at all."""
        with self.stages.stage("write"):
            lowered.save(path)
        lowered.report.seconds = dict(self.stages.seconds)


def tensors_of(output: object) -> list[torch.Tensor]:
    """The tensors in a model's output, whatever its structure."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def error_figures(wanted: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    """Signal to noise in dB, and the largest error relative to the largest output.

    >>> error_figures(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.1]))
    {'SQNR against torch, dB': 20.0, 'largest error / largest output': 0.1}
    """
    noise, signal = (found - wanted).norm(), wanted.norm()
    largest = wanted.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    decibel = float(20 * torch.log10(signal / noise)) if noise > 0 else float("inf")
    return {
        "SQNR against torch, dB": round(decibel, 2),
        "largest error / largest output": float(
            f"{float((found - wanted).abs().max() / largest):.2g}"
        ),
    }
