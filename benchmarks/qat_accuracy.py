"""What does training with rounding bring, next to calibration alone?

    python -m benchmarks.qat_accuracy [--nets mobile_digits] [--bits 8,4] [--json qat.json]
    python -m benchmarks.qat_accuracy --device cuda --jobs 12 --seeds 5

Every file is run by LiteRT on pictures that neither training nor the choice of settings
(`benchmarks.qat_settings`) saw. *Rounded* is calibration with every weight rounded to the nearest
integer, *calibrated* what `calibrate` does by default (weights of four bits are rounded by their
effect), *trained* the mean over some seeds and, after ±, the standard deviation. *Frozen*
is the graph with rounding simulated in floating point, *device* the lowered graph in torch with the
integer arithmetic of LiteRT's kernels; *same class* is how often the file says what that one says,
the least share over the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.fx import GraphModule

import fxquant as fq
from benchmarks.figures import write_json
from benchmarks.qat_nets import NETS, Judged, judged
from benchmarks.qat_settings import (
    SETTINGS,
    Figures,
    Setting,
    figures,
    net_of,
    read_settings,
    side_by_side,
    trained_graph,
    with_data,
)
from examples.digits import Digits, LiteRTModel
from examples.qat import CALIBRATION, PRECISIONS


class Case(NamedTuple):
    """A net with weights of so many bits, one scale for each channel or one for the tensor."""

    net: str
    bits: int
    per_channel: bool


class Trained(NamedTuple):
    """One training: its file, its simulation, and how often both say the same class."""

    executed: Figures
    device: Figures
    frozen: Figures
    agreement: float


@dataclass(frozen=True)
class Row:
    """The figures of one case; `rounded` is None where it is what `calibrate` does."""

    case: Case
    plain: Figures
    rounded: Figures | None
    calibrated: Figures
    trained: list[Trained]

    @property
    def top1(self) -> tuple[float, float]:
        """Mean and standard deviation of the trained files' accuracies."""
        found = [one.executed.top1 for one in self.trained]
        return statistics.mean(found), statistics.stdev(found) if len(found) > 1 else 0.0

    @property
    def loss(self) -> float:
        """The mean of the trained files' cross-entropies."""
        return statistics.mean(one.executed.loss for one in self.trained)


class Logits(nn.Module):
    """What a graph's file gives in LiteRT."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        lowered = fq.lower(graph, "tflite")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.tflite"
            lowered.save(path)
            self.program = LiteRTModel(path)
        self.device = fq.simulate(lowered, "xnnpack")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.program(x)


def calibrated(given: Judged, config: fq.QuantConfig, test: Digits) -> Figures:
    """The file of a net that was only calibrated."""
    images = given.task.train.images[:CALIBRATION]
    prepared = fq.prepare(given.task.model, (images[:1],), config)
    fq.calibrate(prepared, images.split(1), progress=False)
    return figures(Logits(fq.convert(prepared)), test)


class Options(NamedTuple):
    """What all cases have in common."""

    settings: dict[tuple[str, int], Setting]
    device: str


def train_once(work: tuple[Case, int], options: Options) -> Trained:
    """One training of one case with one seed."""
    case, seed = work
    given, test = _given(case)
    config = fq.QuantConfig(PRECISIONS[case.bits], per_channel=case.per_channel)
    setting = options.settings[case.net, case.bits]
    graph = trained_graph(given, config, setting, seed, options.device)
    program = Logits(graph)
    alike = [
        bool(program.device(image).argmax() == program(image).argmax())
        for image in test.images.split(1)
    ]
    return Trained(
        figures(program, test),
        figures(program.device, test),
        figures(graph, test),
        statistics.mean(alike),
    )


def without_training(case: Case) -> tuple[Figures, Figures | None, Figures]:
    """The figures of the float net, and of calibration in both ways."""
    given, test = _given(case)
    config = fq.QuantConfig(PRECISIONS[case.bits], per_channel=case.per_channel)
    nearest = dataclasses.replace(config, refine_rounding=False)
    rounded = calibrated(given, nearest, test) if case.bits == 4 else None
    return figures(given.task.model, test), rounded, calibrated(given, config, test)


def _given(case: Case) -> tuple[Judged, Digits]:
    given = net_of(case.net)
    return given, given.task.test


def measured(
    cases: Sequence[Case], nets: dict[str, Judged], seeds: int, options: Options, jobs: int
) -> list[Row]:
    """All figures of all cases."""
    work = list(itertools.product(cases, range(seeds)))
    trained = side_by_side(functools.partial(train_once, options=options), work, nets, jobs)
    plain = side_by_side(without_training, cases, nets, jobs)
    return [
        Row(case, *before, trained[place * seeds : (place + 1) * seeds])
        for place, (case, before) in enumerate(zip(cases, plain, strict=True))
    ]


def table(rows: Sequence[Row]) -> Table:
    """The figures for a terminal."""
    result = Table(title="top-1 / cross-entropy, files run by LiteRT", title_justify="left")
    for heading in ("net", "weights", "a scale for each"):
        result.add_column(heading)
    for heading in ("float", "rounded", "calibrated", "trained", "frozen", "device", "same class"):
        result.add_column(heading, justify="right")
    for row in rows:
        mean, spread = row.top1
        frozen = statistics.mean(one.frozen.top1 for one in row.trained)
        device = statistics.mean(one.device.top1 for one in row.trained)
        agreement = min(one.agreement for one in row.trained)
        result.add_row(
            row.case.net,
            f"int{row.case.bits}",
            "channel" if row.case.per_channel else "tensor",
            _text(row.plain),
            "" if row.rounded is None else _text(row.rounded),
            _text(row.calibrated),
            f"{mean:.1%} ± {spread * 100:.1f} / {row.loss:.3f}",
            f"{frozen:.1%}",
            f"{device:.1%}",
            f"{agreement:.1%}",
        )
    return result


def _text(found: Figures) -> str:
    return f"{found.top1:.1%} / {found.loss:.3f}"


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table; says so where there are no data."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--learned", choices=("lsq", "lsq+"), help="learn the steps")
    parser.add_argument("--epochs", type=float, help="instead of the settings'")
    parser.add_argument("--settings", type=Path, help="those that benchmarks.qat_settings wrote")
    parser.add_argument("--scales", choices=("channel", "tensor", "both"), default="both")
    parser.add_argument("--limit", type=int, default=1000, help="pictures to judge by")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="where training runs: cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="how many train side by side")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    nets = {net: judged(net, given.limit, given.device) for net in with_data(given.nets)}
    settings = read_settings(given.settings) if given.settings else SETTINGS
    changes = {"learned": given.learned, "epochs": given.epochs}
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = {key: dataclasses.replace(value, **changes) for key, value in settings.items()}
    kinds = {"channel": (True,), "tensor": (False,), "both": (True, False)}[given.scales]
    cases = [
        Case(net, int(bits), per_channel)
        for net, bits, per_channel in itertools.product(nets, given.bits.split(","), kinds)
    ]
    options = Options(settings, given.device)
    rows = measured(cases, nets, given.seeds, options, given.jobs)
    Console(width=150).print(table(rows))
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
