"""What does each quantization method make of each kind of net? Size, accuracy, and exactness.

    python -m benchmarks.methods [--nets cnn,lstm] [--methods 'int8;dynamic'] [--write PAGE]

The nets of `benchmarks/digit_nets.py`, trained on handwritten digits; each file is run by LiteRT on
the digits that training and calibration did not see. `simulated` compares the last graph with
LiteRT's reference kernels, value by value. `--write` puts the table into the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.fx import GraphModule

import fxquant as fq
from benchmarks.digit_nets import NETS, Trained, trained
from benchmarks.execution import FileProgram, agreement, run_all, sqnr
from examples.digits import BATCH
from fxquant.backends.base import Lowered
from fxquant.backends.tflite.interpreter import Kernels, RuntimeFailure
from fxquant.errors import FxquantError

CALIBRATION, EVALUATED, COMPARED = 128, 450, 16
PLACE = re.compile(r"(<!-- methods: begin -->\n).*(<!-- methods: end -->)", re.DOTALL)


@dataclass
class Row:
    """The figures of one net by one method; `failure` says why there are none."""

    net: str
    method: str
    kilobytes: float = 0.0
    sqnr_db: float = 0.0
    top1: float = 0.0
    agreement: float = 0.0
    same_values: float = 0.0
    largest_difference: float = 0.0
    failure: str = ""


def _example(net: Trained) -> tuple[torch.Tensor]:
    return (net.seen.images[:1],)


def _compiled(quantize: str | None) -> Callable[[Trained], Lowered]:
    """The method that `compile` knows by name."""

    def compiled(net: Trained) -> Lowered:
        data = net.seen.images[:CALIBRATION].split(1)
        return fq.compile(
            net.model,
            _example(net),
            quantize=quantize,
            calibration=None if quantize is None else data,
            progress=False,
        )

    return compiled


def _trained_with(precision: str) -> Callable[[Trained], Lowered]:
    """Three epochs of training with quantization simulated."""

    def compiled(net: Trained) -> Lowered:
        torch.manual_seed(0)
        config = fq.QuantConfig(precision=precision)
        prepared = fq.prepare_qat(net.model, _example(net), config)
        _train(prepared.train(), net)
        return fq.lower(fq.convert(prepared.eval()), "tflite")

    return compiled


def _train(prepared: GraphModule, net: Trained, epochs: int = 3) -> None:
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=3e-4)
    for _ in range(epochs):
        order = torch.randperm(len(net.seen.labels))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(prepared(net.seen.images[rows]), net.seen.labels[rows]).backward()
            optimizer.step()


METHODS: dict[str, Callable[[Trained], Lowered]] = {
    "float32": _compiled(None),
    "float16": _compiled("float16"),
    "bfloat16": _compiled("bfloat16"),
    "int8_weights": _compiled("int8_weights"),
    "int4_weights": _compiled("int4_weights"),
    "dynamic": _compiled("dynamic"),
    "int8": _compiled("int8"),
    "int8, trained": _trained_with("int8"),
    "int8w4": _compiled("int8w4"),
    "int8w4, trained": _trained_with("int8w4"),
    "uint8": _compiled("uint8"),
    "int16x8": _compiled("int16x8"),
}


def measure(name: str, method: str) -> Row:
    """Makes the file of one net by one method and runs it."""
    net, row = trained(name), Row(name, method)
    try:
        lowered = METHODS[method](net)
    except FxquantError as error:
        row.failure = str(error).partition("\n")[0]
        return row
    images, labels = net.unseen.images[:EVALUATED].split(1), net.unseen.labels[:EVALUATED]
    wanted = run_all(net.model, images)
    with FileProgram(lowered) as program:
        found = run_all(program, images)
    row.kilobytes = lowered.size() / 1e3
    row.sqnr_db = sqnr(wanted, found)
    row.top1 = float((found.argmax(1) == labels).double().mean())
    row.agreement = agreement(wanted, found)
    _compare(row, lowered, images[:COMPARED])
    return row


def _compare(row: Row, lowered: Lowered, images: Sequence[torch.Tensor]) -> None:
    """The simulation against LiteRT's reference kernels, or the optimized ones where those lack
    an operator's version (depthwise convolutions with int4 weights)."""
    kernels: Kernels = "reference"
    try:
        with FileProgram(lowered, kernels) as program:
            executed = run_all(program, images)
    except RuntimeFailure:
        kernels = "optimized"
        with FileProgram(lowered, kernels) as program:
            executed = run_all(program, images)
    simulated = run_all(fq.simulate(lowered, kernels), images)
    row.same_values = float((simulated == executed).double().mean())
    difference = (simulated - executed).abs().max() / executed.abs().max()
    row.largest_difference = float(difference)


HEADINGS = ("kB", "SQNR, dB", "top-1", "as float", "simulated = LiteRT", "largest difference")


def cells(row: Row) -> list[str]:
    """A row as text."""
    if row.failure:
        return [row.net, row.method, row.failure, *[""] * (len(HEADINGS) - 1)]
    return [
        row.net,
        row.method,
        f"{row.kilobytes:.1f}",
        f"{row.sqnr_db:.1f}",
        f"{row.top1:.1%}",
        f"{row.agreement:.1%}",
        f"{row.same_values:.1%}",
        f"{row.largest_difference:.1g}",
    ]


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    result = Table(title="methods on small nets, run by LiteRT", title_justify="left")
    for heading in ("net", "method"):
        result.add_column(heading)
    for heading in HEADINGS:
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(*cells(row))
    return result


def markdown(rows: Sequence[Row]) -> str:
    """For the page."""
    lines = [("net", "method", *HEADINGS), ("---", "---", *["--:"] * len(HEADINGS))]
    return "".join(f"| {' | '.join(line)} |\n" for line in [*lines, *map(cells, rows)])


def write(page: Path, rows: Sequence[Row]) -> None:
    """Put the table between the page's marks."""
    text = page.read_text()
    page.write_text(PLACE.sub(lambda marks: marks[1] + markdown(rows) + marks[2], text))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default=",".join(NETS), help="names with commas between")
    parser.add_argument("--methods", help="names with semicolons between; all if left out")
    parser.add_argument("--write", type=Path, help="a page with the marks of the table")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    methods = given.methods.split(";") if given.methods else list(METHODS)
    console, rows = Console(stderr=True), []
    for name in given.nets.split(","):
        for method in methods:
            with console.status(f"{name} {method}"):
                rows.append(measure(name, method))
    Console(width=140).print(table(rows))
    if given.write:
        write(given.write, rows)
    if given.json:
        given.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
