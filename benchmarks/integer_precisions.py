"""What do int16 activations gain on real nets, and what do uint8 and one scale a tensor cost?

    python -m benchmarks.integer_precisions [--models cifar_resnet20] [--evaluate 32]

Each net is calibrated on 64 pictures. The file is run by LiteRT's reference kernels on others, and
every output value is compared with the simulation in torch, bit for bit. Few pictures, as 16x8
convolutions are plain loops.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import fxquant as fq
from benchmarks.execution import FileProgram, agreement, centered_sqnr, run_all, sqnr
from benchmarks.figures import write_json
from fxquant.backends.tflite.sample_outputs import run_graph
from tests.support.data import missing_reason, real_net

CALIBRATION = 64
CONFIGS: Mapping[str, fq.QuantConfig] = {
    "int8": fq.QuantConfig("int8"),
    "int8, one scale a tensor": fq.QuantConfig("int8", per_channel=False),
    "uint8": fq.QuantConfig("uint8"),
    "int16x8": fq.QuantConfig("int16x8"),
}


@dataclass(frozen=True)
class Row:
    """The figures of one net in one precision; fractions, dB and MB."""

    model: str
    precision: str
    evaluated: int
    float_top1: float
    top1: float
    agreement: float
    sqnr_db: float
    centered_sqnr_db: float
    equal_to_simulation: float
    megabytes: float


def measure(name: str, precision: str, count: int) -> Row:
    """Quantizes one net to one precision and evaluates its file."""
    net = real_net(name, CALIBRATION + count)
    images = net.images.split(1)
    calibration, evaluated = images[:CALIBRATION], images[CALIBRATION:]
    labels = net.labels[CALIBRATION:]
    lowered = fq.compile(
        net.model,
        (images[0],),
        quantize=CONFIGS[precision],
        calibration=calibration,
        progress=False,
    )
    wanted = run_all(net.model, evaluated)
    simulated = run_all(lambda image: run_graph(lowered, image)[0], evaluated)
    with FileProgram(lowered, "reference") as program:
        found = run_all(program, evaluated)
    return Row(
        model=name,
        precision=precision,
        evaluated=len(evaluated),
        float_top1=_top1(wanted, labels),
        top1=_top1(found, labels),
        agreement=agreement(wanted, found),
        sqnr_db=sqnr(wanted, found),
        centered_sqnr_db=centered_sqnr(wanted, found),
        equal_to_simulation=float((found == simulated).double().mean()),
        megabytes=lowered.size() / 1e6,
    )


def _top1(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def table(rows: Sequence[Row]) -> Table:
    """One line for each net and precision."""
    result = Table(title="integer precisions, run by LiteRT (reference)", title_justify="left")
    result.add_column("net")
    result.add_column("precision")
    headings = "pictures|float top-1|top-1|agreement|SQNR|centered|bytes equal|MB"
    for heading in headings.split("|"):
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(
            row.model,
            row.precision,
            str(row.evaluated),
            f"{row.float_top1:.1%}",
            f"{row.top1:.1%}",
            f"{row.agreement:.1%}",
            f"{row.sqnr_db:.1f} dB",
            f"{row.centered_sqnr_db:.1f} dB",
            f"{row.equal_to_simulation:.2%}",
            f"{row.megabytes:.2f}",
        )
    return result


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table; says so where there are no data."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="cifar_resnet20,tv_mobilenet_v2")
    parser.add_argument("--precisions", default=";".join(CONFIGS), help="semicolons between")
    parser.add_argument("--evaluate", type=int, default=32, help="pictures")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    reason = missing_reason()
    if reason:
        print(reason)
        return []
    console, rows = Console(stderr=True), []
    for name in given.models.split(","):
        for precision in given.precisions.split(";"):
            with console.status(f"{name} {precision}"):
                rows.append(measure(name, precision, given.evaluate))
    Console(width=140).print(table(rows))
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
