"""What does a training step with rounding cost, next to a float step of the same net?

    python -m benchmarks.qat_overhead [--models resnet18,mobilenet_v2] [--profile]
    python -m benchmarks.qat_overhead --device cuda --batch 64 [--compile]

Both steps (forward, loss, backward, SGD) take turns in one process on one core, so that what else
runs on the machine slows both; the fastest of each counts. `--profile` adds where the time of a
step goes, by operator. On an accelerator the clock is the wall's, read when its work is done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
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
    """Seconds of the fastest step of each kind: of CPU time, or of an accelerator's."""

    model: str
    learned: str
    batch: int
    float_step: float
    qat_step: float

    @property
    def ratio(self) -> float:
        """A step with rounding in float steps."""
        return self.qat_step / self.float_step


def step_of(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, compiled: bool = False
) -> Callable[[], None]:
    """One training step of a model, ready to be called."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(forward(images), labels).backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()

    return step


@dataclass(frozen=True)
class Setting:
    """What is timed: pictures in a batch, their size, and where and how the net runs."""

    batch: int = 8
    size: int = 224
    learned: str | None = None
    device: str = "cpu"
    compiled: bool = False


def steps(name: str, setting: Setting) -> tuple[Callable[[], None], Callable[[], None]]:
    """A float step and a step with rounding of one net, on the same pictures."""
    torch.manual_seed(0)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=setting.device)
    labels = torch.randint(1000, (setting.batch,), device=setting.device)
    model = zoo_model(name).to(setting.device)
    prepared = fq.prepare_qat(model, (images,), fq.QuantConfig(learned=setting.learned))
    plain, rounded = (step_of(part, images, labels, setting.compiled) for part in (model, prepared))
    return plain, rounded


def measure(name: str, setting: Setting = Setting(), rounds: int = 5) -> Overhead:
    """Times both steps of one net in turns."""
    torch.set_num_threads(1)
    plain, rounded = steps(name, setting)
    clock = attrgetter("cpu" if setting.device == "cpu" else "wall")
    for _ in range(2):
        plain(), rounded()
    pairs = [(clock(timed(plain)), clock(timed(rounded))) for _ in range(rounds)]
    fastest = [min(column) for column in zip(*pairs, strict=True)]
    return Overhead(name, setting.learned or "observed", setting.batch, fastest[0], fastest[1])


def profiled(name: str, setting: Setting, rows: int = 14) -> str:
    """Where the time of a step with rounding goes."""
    _, rounded = steps(name, setting)
    rounded()
    on_host = setting.device == "cpu"
    kinds = [ProfilerActivity.CPU] if on_host else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=kinds) as found:
        rounded()
    order = f"self_{setting.device}_time_total"
    text: str = found.key_averages().table(sort_by=order, row_limit=rows)
    return text


def table(rows: Sequence[Overhead]) -> Table:
    """The figures of all nets."""
    result = Table(title="one training step, seconds", title_justify="left")
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
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="both nets under torch.compile")
    parser.add_argument("--profile", action="store_true", help="show operators too")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    setting = Setting(given.batch, given.size, given.learned, given.device, given.compile)
    rows = []
    for name in given.models.split(","):
        rows.append(measure(name, setting, given.rounds))
        if given.profile:
            print(profiled(name, setting))
    Console(width=100).print(table(rows))
    if given.json:
        figures = [{**dataclasses.asdict(row), "ratio": row.ratio} for row in rows]
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
