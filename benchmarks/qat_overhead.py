"""What does a training step with rounding cost, next to a float step of the same net?

    python -m benchmarks.qat_overhead [--models resnet18,mobilenet_v2] [--profile]

Both steps (forward, loss, backward, SGD) take turns in one process on one core, so that what else
runs on the machine slows both; the fastest of each counts. `--profile` adds where the time of a
step goes, by operator.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile

import fxquant as fq
from benchmarks.speed import timed
from tests.support.zoo import zoo_model

MODELS = ("resnet18", "mobilenet_v2")
LARGEST_RATIO = 1.6


@dataclass(frozen=True)
class Overhead:
    """CPU seconds of the fastest step of each kind."""

    model: str
    learned: str
    batch: int
    float_step: float
    qat_step: float

    @property
    def ratio(self) -> float:
        """A step with rounding in float steps."""
        return self.qat_step / self.float_step


def step_of(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """One training step of a model, ready to be called."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def steps(
    name: str, batch: int, size: int, learned: str | None = None
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A float step and a step with rounding of one net, on the same pictures."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))
    model = zoo_model(name)
    prepared = fq.prepare_qat(model, (images,), fq.QuantConfig(learned=learned))
    return step_of(model, images, labels), step_of(prepared, images, labels)


def measure(
    name: str, batch: int = 8, size: int = 224, rounds: int = 5, learned: str | None = None
) -> Overhead:
    """Times both steps of one net in turns."""
    torch.set_num_threads(1)
    plain, rounded = steps(name, batch, size, learned)
    plain(), rounded()
    pairs = [(timed(plain).cpu, timed(rounded).cpu) for _ in range(rounds)]
    fastest = [min(column) for column in zip(*pairs, strict=True)]
    return Overhead(name, learned or "observed", batch, fastest[0], fastest[1])


def profiled(name: str, batch: int, size: int, rows: int = 14) -> str:
    """Where the time of a step with rounding goes."""
    _, rounded = steps(name, batch, size)
    rounded()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        rounded()
    text: str = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows)
    return text


def table(rows: Sequence[Overhead]) -> Table:
    """The figures of all nets."""
    result = Table(title="one training step on one core, CPU seconds", title_justify="left")
    for heading in ("net", "ranges", "batch"):
        result.add_column(heading)
    for heading in ("float", "with rounding", "ratio"):
        result.add_column(heading, justify="right")
    for row in rows:
        figures = (f"{row.float_step:.3f}", f"{row.qat_step:.3f}", f"{row.ratio:.2f}")
        result.add_row(row.model, row.learned, str(row.batch), *figures)
    return result


def main(arguments: Sequence[str] | None = None) -> list[Overhead]:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas between")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="of a picture's side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--learned", choices=("lsq", "lsq+"), help="learn the steps")
    parser.add_argument("--profile", action="store_true", help="show operators too")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    rows = []
    for name in given.models.split(","):
        rows.append(measure(name, given.batch, given.size, given.rounds, given.learned))
        if given.profile:
            print(profiled(name, given.batch, given.size))
    Console(width=100).print(table(rows))
    if given.json:
        figures = [{**dataclasses.asdict(row), "ratio": row.ratio} for row in rows]
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
