"""What does training with rounding bring, next to calibration alone?

    python -m benchmarks.qat_accuracy [--nets mobile_digits] [--bits 8,4] [--json qat.json]

The pretrained ResNet-20 on 5,000 pictures of CIFAR-10 (needs `FXQUANT_DATA`), and a small net with
blocks of MobileNetV3 (hard swish, squeeze and excite, depthwise, batch norms with eps 1e-3) on
handwritten digits. Both files of each row are run by LiteRT; the simulation is the frozen graph in
torch.
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
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from examples.digits import Digits, LiteRTModel, digits, measure
from examples.qat import PRECISIONS, Task, calibrated, finetune, trained
from tests.support.data import missing_reason, real_net, training_pictures


@dataclass(frozen=True)
class Setting:
    """How long and how fast a net is trained with weights of so many bits."""

    epochs: float
    rate: float
    learned: str | None = None


SETTINGS: dict[tuple[str, int], Setting] = {
    ("cifar_resnet20", 8): Setting(0.5, 0.0002),
    ("cifar_resnet20", 4): Setting(2, 0.01),
    ("mobile_digits", 8): Setting(4, 0.0005),
    ("mobile_digits", 4): Setting(10, 0.02),
}


@dataclass(frozen=True)
class Row:
    """Top-1 of one net, as fractions; mean cross-entropies, which tell more; seconds."""

    net: str
    bits: int
    per_channel: bool
    learned: str
    float_top1: float
    ptq_top1: float
    simulated_top1: float
    qat_top1: float
    agreement: float
    float_loss: float
    ptq_loss: float
    qat_loss: float
    seconds: float


class MobileBlock(nn.Module):
    """Expand, depthwise, squeeze and excite, project; x is added."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.expand = _layer(width, inner, 1)
        self.depthwise = _layer(inner, inner, 3, groups=inner)
        self.squeeze, self.excite = nn.Conv2d(inner, 8, 1), nn.Conv2d(8, inner, 1)
        self.project = _layer(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))
        result: torch.Tensor = x + self.project(y * F.hardsigmoid(gate))
        return result


def _layer(width_in: int, width: int, kernel: int, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(width_in, width, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width, eps=1e-3, momentum=0.03))


class MobileDigits(nn.Module):
    """Three blocks as in MobileNetV3 for pictures of 8 by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(1, 16, 3)
        self.blocks = nn.Sequential(*(MobileBlock(16, 48) for _ in range(3)))
        self.head = nn.Sequential(nn.Linear(16, 64), nn.Hardswish(), nn.Dropout(0.1))
        self.classes = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.hardswish(self.stem(x)))
        logits: torch.Tensor = self.classes(self.head(x.mean((2, 3))))
        return logits


def task(net: str, limit: int) -> Task:
    """A trained net with its pictures.

    Raises:
        FileNotFoundError: the real net without its data.
    """
    if net == "mobile_digits":
        torch.manual_seed(0)
        seen, unseen = digits()
        model = MobileDigits()
        finetune(model, seen, 14, 0.1, mirrored=False)
        return Task("digits", model, seen, Digits(unseen.images[:limit], unseen.labels[:limit]))
    found = real_net(net, limit)
    return Task(
        net, found.model, Digits(*training_pictures(net)), Digits(found.images, found.labels)
    )


def compare(net: str, given: Task, bits: int, setting: Setting, per_channel: bool) -> Row:
    """Calibrates, trains, and runs both files."""
    config = fq.QuantConfig(PRECISIONS[bits], per_channel=per_channel)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tflite"
        ptq = calibrated(given, config, path)
        ptq_loss = loss(LiteRTModel(path), given.test)
        learning = dataclasses.replace(config, learned=setting.learned)
        outcome = trained(given, learning, setting.epochs, setting.rate, path)
        qat_loss = loss(LiteRTModel(path), given.test)
    alike = outcome.simulated.answers == outcome.executed.answers
    return Row(
        net=net,
        bits=bits,
        per_channel=per_channel,
        learned=setting.learned or "observed",
        float_top1=measure(given.model, given.test).accuracy,
        ptq_top1=ptq.accuracy,
        simulated_top1=outcome.simulated.accuracy,
        qat_top1=outcome.executed.accuracy,
        agreement=alike.double().mean().item(),
        float_loss=loss(given.model, given.test),
        ptq_loss=ptq_loss,
        qat_loss=qat_loss,
        seconds=round(time.perf_counter() - start, 1),
    )


@torch.no_grad()
def loss(program: Callable[[torch.Tensor], torch.Tensor], data: Digits) -> float:
    """The mean cross-entropy of a program."""
    logits = torch.cat([program(image) for image in data.images.split(1)])
    return F.cross_entropy(logits, data.labels).item()


def table(rows: Sequence[Row]) -> Table:
    """The figures of all nets."""
    result = Table(title="top-1, files run by LiteRT", title_justify="left")
    for heading in ("net", "weights", "a scale for each", "ranges"):
        result.add_column(heading)
    for heading in (
        "float",
        "calibrated",
        "trained",
        "simulated",
        "same class",
        "loss: float / calibrated / trained",
    ):
        result.add_column(heading, justify="right")
    for row in rows:
        figures = (row.float_top1, row.ptq_top1, row.qat_top1, row.simulated_top1, row.agreement)
        cells = [f"{figure:.1%}" for figure in figures]
        cells.append(f"{row.float_loss:.3f} / {row.ptq_loss:.3f} / {row.qat_loss:.3f}")
        scales = "channel" if row.per_channel else "tensor"
        result.add_row(row.net, f"int{row.bits}", scales, row.learned, *cells)
    return result


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table; says so where there are no data."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default="cifar_resnet20,mobile_digits")
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--learned", choices=("lsq", "lsq+"), help="learn the steps")
    parser.add_argument("--epochs", type=float, help="instead of the settings")
    parser.add_argument("--scales", choices=("channel", "both"), default="both")
    parser.add_argument("--limit", type=int, default=450, help="pictures to judge by")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for net in given.nets.split(","):
        if net != "mobile_digits" and missing_reason():
            print(missing_reason())
            continue
        made = task(net, given.limit)
        for bits in map(int, given.bits.split(",")):
            setting = dataclasses.replace(SETTINGS[net, bits], learned=given.learned)
            if given.epochs:
                setting = dataclasses.replace(setting, epochs=given.epochs)
            for per_channel in (True, False) if given.scales == "both" else (True,):
                rows.append(compare(net, made, bits, setting, per_channel))
    Console(width=130).print(table(rows))
    if given.json:
        given.json.write_text(
            json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n"
        )
    return rows


if __name__ == "__main__":
    main()
