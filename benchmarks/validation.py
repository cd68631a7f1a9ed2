"""Does every pass keep its word on real nets? Translation validation over the whole zoo.

    python -m benchmarks.validation [--models resnet18,alexnet] [--precisions float,int8]

Each net is compiled with channels-last borders; every pass's input and output run on a picture and
are compared by the pass's declared semantics. A row says how many passes changed the graph, and the
largest relative error of one, or which pass is wrong and at which node.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import fxquant as fq
from fxquant.passes.instruments import Validate
from tests.support.zoo import NAMES, random_images, zoo_model

PRECISIONS = ("float", "int8")


@dataclass(frozen=True)
class Row:
    """What validation said of one net in one precision."""

    model: str
    precision: str
    passes: int
    worst: str
    error: float
    seconds: float
    failure: str = ""

    def __str__(self) -> str:
        head = f"{self.model:<20} {self.precision:<6} {self.passes:3d} passes {self.seconds:6.1f} s"
        return f"{head}  {self.failure or f'largest error {self.error:.2g} ({self.worst})'}"


def validated(model: str, precision: str) -> Row:
    """The row of one net."""
    net, data = zoo_model(model), [(image,) for image in random_images(model, 2, seed=1)]
    watching = Validate(data[0])
    int8 = precision == "int8"
    start, failure = time.perf_counter(), ""
    try:
        fq.compile(
            net,
            data[0],
            quantize="int8" if int8 else None,
            calibration=data if int8 else None,
            io_layout="nhwc",
            io_dtype="int8" if int8 else "float32",
            progress=False,
            instruments=[watching],
        )
    except fq.FxquantError as error:
        failure = f"{type(error).__name__}: {error}"
    worst, gap = max(watching.rows, key=lambda row: row[1], default=("", 0.0))
    seconds = time.perf_counter() - start
    return Row(model, precision, len(watching.rows), worst, gap, seconds, failure)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print a row for each net and precision; return them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    options = parser.parse_args(arguments)
    rows = []
    for model in options.models.split(","):
        for precision in options.precisions.split(","):
            rows.append(validated(model, precision))
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
