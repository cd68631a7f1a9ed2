"""How much accuracy does int8 cost on real nets and real pictures?

    python -m benchmarks.accuracy [--models cifar_resnet20] [--json accuracy.json]

Nets and pictures come from `FXQUANT_DATA` (see `tests/support/data.py`). Each net is calibrated on
some pictures, and its file is run by LiteRT on others. The figures of other converters were
measured on pictures of the same sets, 64 to calibrate and 236 to evaluate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

import fxquant as fq
from benchmarks.execution import FileProgram, agreement, centered_sqnr, run_all
from benchmarks.figures import write_json
from fxquant.backends.tflite.interpreter import Kernels
from tests.support.data import REAL_NETS, missing_reason, real_net

CALIBRATION = 64
KERNELS: tuple[Kernels, ...] = ("xnnpack", "optimized", "reference")


class Peer(NamedTuple):
    """What another converter reaches: top-1 and agreement in %, centered SQNR in dB."""

    top1: float
    agreement: float
    sqnr_db: float


PEERS: dict[str, dict[str, Peer]] = {
    "tv_mobilenet_v2": {
        "TinyNeuralNetwork": Peer(79.7, 92.0, 10.9),
        "litert-torch + ai-edge-quantizer": Peer(77.1, 89.8, 18.3),
    },
    "tv_squeezenet1_1": {
        "TinyNeuralNetwork": Peer(67.4, 92.0, 21.9),
        "litert-torch + ai-edge-quantizer": Peer(53.0, 75.9, 21.1),
    },
    "cifar_resnet20": {
        "TinyNeuralNetwork": Peer(92.0, 100.0, 29.6),
        "litert-torch + ai-edge-quantizer": Peer(92.0, 100.0, 14.0),
    },
}


@dataclass(frozen=True)
class Row:
    """The figures of one net; fractions, dB and seconds."""

    model: str
    evaluated: int
    float_top1: float
    int8_top1: float
    agreement: float
    centered_sqnr_db: float
    megabytes: float
    compile_seconds: float


def measure(name: str, kernels: Kernels = "xnnpack", limit: int = 300) -> Row:
    """Quantizes one net and evaluates its file."""
    net = real_net(name, limit)
    images = net.images.split(1)
    calibration, evaluated = images[:CALIBRATION], images[CALIBRATION:]
    labels = net.labels[CALIBRATION:]
    start = time.perf_counter()
    lowered = fq.compile(
        net.model, (images[0],), quantize="int8", calibration=calibration, progress=False
    )
    seconds = time.perf_counter() - start
    wanted = run_all(net.model, evaluated)
    with FileProgram(lowered, kernels) as program:
        found = run_all(program, evaluated)
    return Row(
        model=name,
        evaluated=len(evaluated),
        float_top1=_top1(wanted, labels),
        int8_top1=_top1(found, labels),
        agreement=agreement(wanted, found),
        centered_sqnr_db=centered_sqnr(wanted, found),
        megabytes=lowered.size() / 1e6,
        compile_seconds=round(seconds, 2),
    )


def _top1(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def table(rows: Sequence[Row]) -> Table:
    """Our figures, and below each net those of other converters."""
    result = Table(title="int8 on real nets, run by LiteRT", title_justify="left")
    result.add_column("net")
    result.add_column("converter")
    for heading in ("float top-1", "int8 top-1", "agreement", "centered SQNR", "MB", "seconds"):
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(
            row.model,
            "[bold]fxquant[/]",
            f"{row.float_top1:.1%}",
            f"{row.int8_top1:.1%}",
            f"{row.agreement:.1%}",
            f"{row.centered_sqnr_db:.1f} dB",
            f"{row.megabytes:.2f}",
            f"{row.compile_seconds:.1f}",
        )
        for peer, figures in PEERS.get(row.model, {}).items():
            top1, agrees = f"{figures.top1:.1f}%", f"{figures.agreement:.1f}%"
            result.add_row("", peer, "", top1, agrees, f"{figures.sqnr_db:.1f} dB", "", "")
        result.add_section()
    return result


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table; says so where there are no data."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(REAL_NETS), help="names with commas between")
    parser.add_argument("--kernels", choices=KERNELS, default="xnnpack")
    parser.add_argument("--limit", type=int, default=300, help="pictures, 64 of them to calibrate")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    reason = missing_reason()
    if reason:
        print(reason)
        return []
    console, rows = Console(stderr=True), []
    for name in given.models.split(","):
        with console.status(name):
            rows.append(measure(name, given.kernels, given.limit))
    Console(width=120).print(table(rows))
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
