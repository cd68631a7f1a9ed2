"""How long does a conversion take, next to one forward pass of the same net?

    python -m benchmarks.speed [--model mobilenet_v2] [--json speed.json]

On one core: trace, all passes and the written file, in float. The forward pass of the same run is
the yardstick, since seconds alone say more about the machine. The first conversion of a process
also pays for imports and caches; it is shown apart from the best of the following ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import fxquant as fq
from tests.support.zoo import random_images, zoo_model


@dataclass(frozen=True)
class Times:
    """Wall and CPU seconds of one call."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Speed:
    """The figures of one net."""

    model: str
    forward: Times
    first: Times
    best: Times
    stages: dict[str, float]

    @property
    def relative(self) -> float:
        """A conversion in forward passes."""
        return self.best.cpu / self.forward.cpu


def timed(work: Callable[[], object]) -> Times:
    """The seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def best_of(work: Callable[[], object], rounds: int) -> Times:
    """The fastest of several calls; others share the machine."""
    return min((timed(work) for _ in range(rounds)), key=lambda times: times.cpu)


def measure(name: str = "mobilenet_v2", rounds: int = 3) -> Speed:
    """Times forward passes and conversions of one net on one core."""
    torch.set_num_threads(1)
    model, (image,) = zoo_model(name), random_images(name, 1, seed=0)
    stages: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:

        def convert() -> None:
            path = Path(folder) / "m.tflite"
            lowered = fq.compile(model, (image,), output=path, progress=False, verify=False)
            stages.update(lowered.report.seconds)

        first, best = timed(convert), best_of(convert, rounds)
    with torch.no_grad():
        forward = best_of(lambda: model(image), 5)
    return Speed(name, forward, first, best, stages)


def table(speed: Speed) -> Table:
    """The figures for a terminal."""
    result = Table(title=f"{speed.model}, float, one core", title_justify="left")
    result.add_column("what")
    for heading in ("wall s", "CPU s", "forward passes"):
        result.add_column(heading, justify="right")
    rows = {"forward pass": speed.forward, "first conversion": speed.first, "best": speed.best}
    for label, times in rows.items():
        passes = f"{times.cpu / speed.forward.cpu:.1f}"
        result.add_row(label, f"{times.wall:.3f}", f"{times.cpu:.3f}", passes)
    for stage, seconds in speed.stages.items():
        result.add_row(f"  {stage}", f"{seconds:.3f}", "", "")
    return result


def main(arguments: Sequence[str] | None = None) -> Speed:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    speed = measure(given.model, given.rounds)
    Console().print(table(speed))
    if given.json:
        given.json.write_text(json.dumps(dataclasses.asdict(speed), indent=1) + "\n")
    return speed


if __name__ == "__main__":
    main()
