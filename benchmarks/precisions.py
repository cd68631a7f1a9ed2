"""What each precision costs and saves on real nets: size, error, agreement, time in LiteRT.

    python -m benchmarks.precisions [--models cifar_resnet20] [--precisions dynamic float16]
                                    [--calibrate] [--json precisions.json]

Nets and pictures come from `FXQUANT_DATA`. Every file is run by LiteRT with its default kernels on
one thread, and simulated by the graph with the same kernels' arithmetic. With `--calibrate` the
precisions that need no data get 64 pictures too, which correct biases and refine 4-bit rounding.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import fxquant as fq
from benchmarks.execution import FileProgram, agreement, centered_sqnr, run_all
from fxquant.quant.spec import PRECISIONS
from tests.support.data import REAL_NETS, RealNet, missing_reason, real_net

CALIBRATION, SIMULATED = 64, 8
NAMES = ("float32", *(name for name in PRECISIONS if name != "float32"))


@dataclass(frozen=True)
class Row:
    """The figures of one file; fractions, dB, bytes and milliseconds."""

    model: str
    precision: str
    size: int
    top1: float
    agreement: float
    sqnr_db: float
    simulation: float
    milliseconds: float

    def cells(self) -> tuple[str, ...]:
        """For a table."""
        return (
            self.model,
            self.precision,
            f"{self.size / 1e6:.2f} MB",
            f"{self.top1:.1%}",
            f"{self.agreement:.1%}",
            f"{self.sqnr_db:.1f} dB",
            f"{self.simulation:.1%}",
            f"{self.milliseconds:.1f} ms",
        )


HEADINGS = ("net", "precision", "file", "top-1", "as float", "SQNR", "simulation", "one picture")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure every net in every precision."""
    options = _parser().parse_args(arguments)
    reason = missing_reason()
    if reason is not None:
        print(reason)
        return []
    torch.set_num_threads(1)
    rows = [row for name in options.models for row in measure(name, options)]
    if options.json is not None:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    return rows


def measure(name: str, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one net, each printed as it is known."""
    net = real_net(name, CALIBRATION + options.limit)
    test = list(net.images[CALIBRATION:].split(1))
    reference = run_all(net.model, test)
    console = Console(width=110)
    for number, precision in enumerate(options.precisions):
        row = _row(net, precision, test, reference, always=options.calibrate)
        console.print(_table(row, head=number == 0))
        yield row


def _row(
    net: RealNet, precision: str, test: list[torch.Tensor], reference: torch.Tensor, always: bool
) -> Row:
    quantize = None if precision == "float32" else precision
    needed = quantize is not None and (always or fq.QuantConfig(precision).needs_data)
    data = net.images[:CALIBRATION].split(8) if needed else None
    lowered = fq.compile(net.model, (test[0],), quantize=quantize, calibration=data, progress=False)
    with FileProgram(lowered) as program:
        found = run_all(program, test)
        seconds = [_seconds(program, image) for image in test]
    simulated = run_all(fq.simulate(lowered, "xnnpack"), test[:SIMULATED])
    return Row(
        net.name,
        precision,
        lowered.size(),
        float((found.argmax(1) == net.labels[CALIBRATION:]).double().mean()),
        agreement(found, reference),
        centered_sqnr(reference, found),
        agreement(simulated, found[:SIMULATED]),
        statistics.median(seconds) * 1e3,
    )


def _seconds(program: FileProgram, image: torch.Tensor) -> float:
    start = time.perf_counter()
    program(image)
    return time.perf_counter() - start


def _table(row: Row, head: bool) -> Table:
    table = Table(box=None, show_header=head, pad_edge=False)
    for heading, width in zip(HEADINGS, (17, 13, 9, 8, 9, 9, 11, 12), strict=True):
        table.add_column(heading, width=width, justify="left" if width > 12 else "right")
    table.add_row(*row.cells())
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.precisions")
    parser.add_argument("--models", nargs="+", default=list(REAL_NETS), choices=REAL_NETS)
    parser.add_argument("--precisions", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--limit", type=int, default=100, help="pictures to evaluate")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    main()
