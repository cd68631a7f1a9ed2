"""Do common nets become ONNX files that compute what torch computes?

    python -m benchmarks.onnx_zoo [--models resnet18,alexnet] [--json onnx_zoo.json]

For each net of `tests/support/zoo.py`: the relative error of the float file in ONNX Runtime, signal
to noise against torch of the int8 simulation (the quantized core graph run in torch), of the int8
file as it is written, of the file that ONNX Runtime has optimized to integer kernels, and of those
kernels by default, which saturate on x86 without VNNI. The last column says whether every value of
the int8 file agrees with the last graph.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

import fxquant as fq
from benchmarks.execution import relative_error, run_all, sqnr
from benchmarks.figures import write_json
from fxquant.backends.base import Lowered
from fxquant.backends.onnx.samples import flat_inputs
from fxquant.backends.onnx.verify import run, session
from tests.support.zoo import NAMES, random_images, zoo_model

CALIBRATION_SEED, TEST_SEED = 1000, 9000
FLOAT_LIMIT, INT8_LIMIT = 1e-4, 1.0


@dataclass
class Row:
    """The figures of one net; `failure` says why there are none."""

    model: str
    seconds: float = 0.0
    float_error: float = 0.0
    simulation_db: float = 0.0
    file_db: float = 0.0
    optimized_db: float = 0.0
    saturating_db: float = 0.0
    stayed_float: int = 0
    verified: bool = False
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Within the limits."""
        return not self.failure and self.float_error < FLOAT_LIMIT and self.near and self.verified

    @property
    def near(self) -> bool:
        """Whether the file is as far from torch as the simulation is, neither more nor less."""
        found = (self.file_db, self.optimized_db)
        return all(abs(decibel - self.simulation_db) < INT8_LIMIT for decibel in found)

    def __str__(self) -> str:
        if self.failure:
            return f"! {self.model:<20} {self.failure}"
        return (
            f"{' ' if self.ok else '!'} {self.model:<20} {self.seconds:7.1f} s  "
            f"float {self.float_error:.1e}  simulation {self.simulation_db:5.1f} dB  "
            f"file {self.file_db:5.1f} dB  optimized {self.optimized_db:5.1f} dB  "
            f"saturating {self.saturating_db:5.1f} dB  "
            f"float operators {self.stayed_float}  "
            f"{'every value agrees' if self.verified else 'VALUES DIFFER'}"
        )


def in_runtime(
    lowered: Lowered, *, optimized: bool = False, exact: bool = True
) -> Callable[[Tensor], Tensor]:
    """The file in ONNX Runtime, called with pictures as the model is."""
    made = session(lowered.to_bytes(), optimized=optimized, exact=exact)

    def program(image: Tensor) -> Tensor:
        return next(iter(run(made, flat_inputs(lowered.graph_module, image)).values()))

    return program


def measure(name: str, model: nn.Module, calibration: int, test: int) -> Row:
    """Converts one net in float and in int8, and compares what came out."""
    row, start = Row(name), time.perf_counter()
    images = random_images(name, calibration, seed=CALIBRATION_SEED)
    unseen = random_images(name, test, seed=TEST_SEED)
    wanted = run_all(model, unseen)
    whole = fq.compile(model, (images[0],), backend="onnx")
    row.float_error = relative_error(wanted, run_all(in_runtime(whole), unseen))
    prepared = fq.prepare(model, (images[0],), backend="onnx")
    fq.calibrate(prepared, images, progress=False)
    core = fq.convert(prepared)
    lowered = fq.lower(core, "onnx")
    row.stayed_float = len(lowered.report.stayed_float)
    row.simulation_db = sqnr(wanted, run_all(core, unseen))
    row.file_db = sqnr(wanted, run_all(in_runtime(lowered), unseen))
    row.optimized_db = sqnr(wanted, run_all(in_runtime(lowered, optimized=True), unseen))
    default = in_runtime(lowered, optimized=True, exact=False)
    row.saturating_db = sqnr(wanted, run_all(default, unseen))
    row.verified = bool(fq.verify(lowered, unseen[:1]).ok)
    row.seconds = time.perf_counter() - start
    return row


def measure_or_reason(name: str, calibration: int, test: int) -> Row:
    """The figures of a net, or why there are none."""
    try:
        return measure(name, zoo_model(name), calibration, test)
    except Exception:
        return Row(name, failure=traceback.format_exc().splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints a line for each net."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(NAMES), help="names with commas between")
    parser.add_argument("--calibration", type=int, default=16)
    parser.add_argument("--test", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    console, rows = Console(soft_wrap=True, highlight=False, markup=False), []
    for name in given.models.split(","):
        rows.append(measure_or_reason(name, given.calibration, given.test))
        console.print(str(rows[-1]))
    console.print(f"{sum(row.ok for row in rows)} of {len(rows)} within the limits")
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
