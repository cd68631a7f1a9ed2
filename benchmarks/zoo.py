"""Do common nets convert, how fast, into what, and how exactly?

    python -m benchmarks.zoo [--models resnet18,alexnet] [--json zoo.json]

For each net of `tests/support/zoo.py`, in float32 and in int8: seconds by stage, operators in the
file and how many only move values, signal to noise against torch of the file run by LiteRT, and how
far the last graph and LiteRT's reference kernels agree. The borders are channels-last, int8 for
int8; the last TRANSPOSE column is for channels-first borders.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.fx import GraphModule

import fxquant as fq
from benchmarks.execution import FileProgram, relative_error, run_all, sqnr
from benchmarks.figures import write_json
from fxquant.backends.base import IoDtype, Lowered
from fxquant.errors import FxquantError
from tests.support.zoo import NAMES, random_images, zoo_model

CALIBRATION_SEED, TEST_SEED = 1000, 9000
MOVES = ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE")
PRECISIONS = ("float", "int8")


@dataclass
class Row:
    """The figures of one net in one precision; `failure` says why there are none."""

    model: str
    precision: str
    seconds: dict[str, float] = field(default_factory=dict)
    operators: int = 0
    moves: dict[str, int] = field(default_factory=dict)
    transposes_nchw: int = 0
    megabytes: float = 0.0
    sqnr_db: float = 0.0
    relative_error: float = 0.0
    output_agreement: float = 0.0
    largest_step: int = 0
    verified: bool = False
    failure: str = ""

    @property
    def compile_seconds(self) -> float:
        """All stages but the verification."""
        return sum(value for name, value in self.seconds.items() if name != "verify")


@dataclass(frozen=True)
class Settings:
    """How many pictures are used for what."""

    calibration: int = 16
    test: int = 4
    verify: int = 1


class Clock:
    """Seconds of named stages, one after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        """Ends a stage; the next begins."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


def core_graph(
    model: nn.Module, images: Sequence[torch.Tensor], precision: str, clock: Clock
) -> GraphModule:
    """The graph that is lowered."""
    if precision == "float":
        graph = fq.trace(model, (images[0],))
        clock.stop("trace")
        graph = fq.Pipeline.default("float")(graph)
        clock.stop("passes")
        return graph
    prepared = fq.prepare(model, (images[0],))
    clock.stop("prepare")
    fq.calibrate(prepared, images, progress=False)
    clock.stop("calibrate")
    quantized = fq.convert(prepared)
    clock.stop("freeze")
    return quantized


def measure(name: str, model: nn.Module, precision: str, settings: Settings) -> Row:
    """Converts one net and compares what came out."""
    row = Row(name, precision)
    calibration = random_images(name, settings.calibration, seed=CALIBRATION_SEED)
    test = random_images(name, settings.test, seed=TEST_SEED)
    clock = Clock()
    graph = core_graph(model, calibration, precision, clock)
    io_dtype: IoDtype = "int8" if precision == "int8" else "float32"
    lowered = fq.lower(graph, "tflite", io_layout="nhwc", io_dtype=io_dtype)
    clock.stop("lower")
    row.megabytes = len(lowered.to_bytes()) / 1e6
    clock.stop("write")
    _verify(row, lowered, test[: settings.verify])
    clock.stop("verify")
    row.seconds = clock.seconds
    row.operators = lowered.report.operator_count()
    row.moves = {move: lowered.report.operators.get(move, 0) for move in MOVES}
    row.transposes_nchw = fq.lower(graph, "tflite").report.operators.get("TRANSPOSE", 0)
    with FileProgram(lowered) as program:
        wanted, found = run_all(model, test), run_all(program, test)
    row.sqnr_db, row.relative_error = sqnr(wanted, found), relative_error(wanted, found)
    return row


def _verify(row: Row, lowered: Lowered, images: Sequence[torch.Tensor]) -> None:
    report = fq.verify(lowered, images)
    row.output_agreement = report.agreement
    row.largest_step = max((each.alone.steps for each in report.rows), default=0)
    row.verified = report.ok


def run_zoo(names: Sequence[str], precisions: Sequence[str], settings: Settings) -> list[Row]:
    """All figures; a net that fails gets a row with the reason."""
    console, rows = Console(stderr=True, soft_wrap=True, highlight=False), []
    for name in names:
        model = zoo_model(name)
        for precision in precisions:
            rows.append(_measure_or_reason(name, model, precision, settings))
            console.print(" ".join([name, precision, *_cells(rows[-1])]))
    return rows


def _measure_or_reason(name: str, model: nn.Module, precision: str, settings: Settings) -> Row:
    try:
        return measure(name, model, precision, settings)
    except FxquantError as error:
        return Row(name, precision, failure=f"{type(error).__name__}: {error}".partition("\n")[0])
    except Exception:
        return Row(name, precision, failure=traceback.format_exc().splitlines()[-1])


def table(rows: Sequence[Row]) -> Table:
    """The figures for a terminal."""
    result = Table(title="zoo", title_justify="left")
    for heading in ("model", "precision"):
        result.add_column(heading)
    numbers = (
        "seconds: by stage",
        "ops",
        "T/Q/DQ",
        "T nchw",
        "MB",
        "SQNR dB",
        "error",
        "=LiteRT",
        "step",
    )
    for heading in numbers:
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(row.model, row.precision, *_cells(row))
    return result


def _cells(row: Row) -> list[str]:
    if row.failure:
        return [row.failure]
    stages = " ".join(f"{name} {value:.2f}" for name, value in row.seconds.items())
    return [
        f"{row.compile_seconds:.2f}: {stages}",
        str(row.operators),
        "/".join(str(row.moves[move]) for move in MOVES),
        str(row.transposes_nchw),
        f"{row.megabytes:.2f}",
        f"{row.sqnr_db:.1f}",
        f"{row.relative_error:.1e}",
        f"{row.output_agreement:.2%}",
        f"{row.largest_step}{'' if row.verified else ' !'}",
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(NAMES), help="names with commas between")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    for name in ("calibration", "test", "verify"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    settings = Settings(given.calibration, given.test, given.verify)
    rows = run_zoo(given.models.split(","), given.precisions.split(","), settings)
    Console(width=170).print(table(rows))
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
