"""What does calibration cost, next to plain forward passes of the same net? And does memory grow?

    python -m benchmarks.calibration [--models mobilenet_v2,resnet18] [--json calibration.json]

One core, batches of one picture, CPU seconds, the best window of eight batches in several rounds
that take turns: other programs on the machine count little. *Each batch* is what one more batch
costs, *fixed* what is paid once whatever the data (equalization, bias correction, search of
ranges), both in forward passes of the user's model. *In all* is a calibration on 256 and on 1,024
pictures. Memory is the peak of a fresh process on 32 pictures, when all that is bounded is full,
and on 256. The goals: minmax 1.3, mse and entropy 2; memory flat.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from benchmarks.figures import write_json
from benchmarks.speed import timed
from tests.support.zoo import random_images, zoo_model

OBSERVERS = ("minmax", "mse", "entropy")
GOALS = {"minmax": 1.3, "mse": 2.0, "entropy": 2.0}
MODELS = ("mobilenet_v2", "resnet18")
PICTURES = 256
FIRST, BATCHES, WINDOW = 16, 48, 8
"""Batches before the first that is timed (the first ones are held back to equalize), those that
are timed, and how many are timed together."""


@dataclass(frozen=True)
class Cost:
    """Calibration with one observer, in forward passes of the plain model.

    Attributes:
        each: of one more batch.
        fixed: what is paid once.
        forward_ms: milliseconds of one forward pass.
        megabytes: how much the peak memory on 256 pictures exceeds that on 32.
    """

    model: str
    observer: str
    each: float
    fixed: float
    forward_ms: float
    megabytes: float | None = None

    def total(self, pictures: int = PICTURES) -> float:
        """A calibration on so many pictures, relative to as many forward passes."""
        return self.each + self.fixed / pictures


def prepared(model: str, observer: str) -> GraphModule:
    """A net of the zoo with one observer for all activations, all corrections on."""
    config = fq.QuantConfig(activations=fq.QuantSpec("int8", observer=observer))
    return fq.prepare(zoo_model(model), tuple(random_images(model, 1, seed=0)), config)


class Stamped:
    """Data that note the CPU time at which each batch is asked for."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self.batches = batches
        self.times: list[float] = []

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches:
            self.times.append(time.process_time())
            yield batch
        self.times.append(time.process_time())

    def best_window(self, start: int) -> float:
        """Seconds of one batch in the best of the windows after batch `start`."""
        windows = zip(self.times[start::WINDOW], self.times[start + WINDOW :: WINDOW], strict=False)
        return min(after - before for before, after in windows) / WINDOW


def measure(model: str, observers: Sequence[str] = OBSERVERS, rounds: int = 2) -> list[Cost]:
    """Times the observers of one net, in turns with its forward pass."""
    torch.set_num_threads(1)
    net = zoo_model(model)
    images = random_images(model, WINDOW, seed=1) * ((FIRST + BATCHES) // WINDOW)
    plain, each, whole = [], defaultdict(list), defaultdict(list)
    for _ in range(rounds):
        for observer in observers:
            plain.append(_forward(net, images))
            data, graph_module = Stamped(images), prepared(model, observer)
            calibration = timed(partial(_calibrate, graph_module, data))
            each[observer].append(data.best_window(FIRST))
            whole[observer].append(calibration.cpu)
    unit = min(plain)
    return [_cost(model, name, min(each[name]), min(whole[name]), unit) for name in observers]


def _calibrate(graph_module: GraphModule, data: Stamped) -> None:
    fq.calibrate(graph_module, data, progress=False)


@torch.no_grad()
def _forward(net: nn.Module, images: Sequence[Tensor]) -> float:
    data = Stamped(images)
    for image in data:
        net(image)
    return data.best_window(WINDOW)


def _cost(model: str, observer: str, each: float, whole: float, unit: float) -> Cost:
    fixed = whole - (FIRST + BATCHES) * each
    return Cost(model, observer, each / unit, fixed / unit, unit * 1e3)


def peak_megabytes(model: str, observer: str, pictures: int) -> float:
    """The peak memory of a fresh process that calibrates on so many pictures."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (model, observer, pictures))


def _peak(model: str, observer: str, pictures: int) -> float:
    torch.set_num_threads(1)
    graph_module = prepared(model, observer)
    seeds = range(pictures)
    data = (image for seed in seeds for image in random_images(model, 1, seed=seed))
    fq.calibrate(graph_module, data, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(costs: Sequence[Cost]) -> Table:
    """The figures for a terminal."""
    result = Table(title="calibration, in forward passes of the plain model", title_justify="left")
    result.add_column("net")
    result.add_column("observer")
    for heading in (
        "forward ms",
        "each batch",
        "goal",
        "fixed",
        "all of 256",
        "of 1024",
        "more MB",
    ):
        result.add_column(heading, justify="right")
    for cost in costs:
        goal = GOALS.get(cost.observer)
        result.add_row(
            cost.model,
            cost.observer,
            f"{cost.forward_ms:.1f}",
            f"{cost.each:.2f}",
            "" if goal is None else f"{goal:.1f}",
            f"{cost.fixed:.0f}",
            f"{cost.total():.2f}",
            f"{cost.total(1024):.2f}",
            "" if cost.megabytes is None else f"{cost.megabytes:.0f}",
        )
    return result


def main(arguments: Sequence[str] | None = None) -> list[Cost]:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas between")
    parser.add_argument("--observers", default=",".join(OBSERVERS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    costs: list[Cost] = []
    for model in given.models.split(","):
        for cost in measure(model, given.observers.split(","), given.rounds):
            if not given.no_memory:
                peaks = [peak_megabytes(model, cost.observer, n) for n in (32, PICTURES)]
                cost = dataclasses.replace(cost, megabytes=peaks[1] - peaks[0])
            costs.append(cost)
    Console(width=110).print(table(costs))
    write_json(given.json, costs)
    return costs


if __name__ == "__main__":
    main()
