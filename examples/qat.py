"""Training with rounding: the user's own loop, then a file whose accuracy LiteRT measures.

    python -m examples.qat [folder] [--epochs 2] [--bits 8|4] [--learned lsq]

With `FXQUANT_DATA` (see CONTRIBUTING) the pretrained ResNet-20 on 5,000 pictures of CIFAR-10,
otherwise a small net on handwritten digits. `finetune` is an ordinary loop: it trains the float
net and the prepared one alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from examples.digits import Digits as Labelled
from examples.digits import LiteRTModel, Measurement, digits, measure, train
from tests.support.data import data_dir, real_net, training_pictures

BATCH, CALIBRATION = 64, 64
STATISTICS_FOLLOW = 0.005
"""The learning rate from which batch norms normalize by the batch."""
PRECISIONS = {8: "int8", 4: "int8w4"}
console = Console(highlight=False)


class Task(NamedTuple):
    """A trained net, pictures to train it on, and pictures to judge by."""

    name: str
    model: nn.Module
    train: Labelled
    test: Labelled


def task(limit: int) -> Task:
    """The real net where its data are, the digits elsewhere."""
    if data_dir() is None:
        seen, unseen = digits()
        return Task("digits", train(seen), seen, unseen)
    net = real_net("cifar_resnet20", limit)
    pictures = Labelled(*training_pictures("cifar_resnet20"))
    return Task(net.name, net.model, pictures, Labelled(net.images, net.labels))


def finetune(
    model: nn.Module, data: Labelled, epochs: float, rate: float, mirrored: bool = True
) -> None:
    """Train a model in place; `epochs` may be a fraction.

    Args:
        model: any module.
        data: pictures and labels.
        epochs: how often each picture is seen.
        rate: the learning rate to begin with.
        mirrored: show half of the pictures as in a mirror.
    """
    steps = max(int(epochs * len(data.labels) / BATCH), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.cat([torch.randperm(len(data.labels)) for _ in range(int(epochs) + 1)])
    model.train()
    for rows in order.split(BATCH)[:steps]:
        images = data.images[rows]
        if mirrored:
            flipped = torch.rand(len(rows), device=images.device) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
        optimizer.zero_grad()
        F.cross_entropy(model(images), data.labels[rows]).backward()
        optimizer.step()
        schedule.step()
    model.eval()


class Outcome(NamedTuple):
    """A trained and frozen graph, its program's measurements, and its file's size."""

    simulated: Measurement
    executed: Measurement
    bytes: int


def trained(given: Task, config: fq.QuantConfig, epochs: float, rate: float, path: Path) -> Outcome:
    """Prepare, train, freeze, write, run."""
    torch.manual_seed(0)
    example = (given.train.images[:1],)
    prepared = fq.prepare_qat(given.model, example, config)
    fq.calibrate(prepared, given.train.images[:CALIBRATION].split(BATCH), progress=False)
    if rate < STATISTICS_FOLLOW:  # a short touch: statistics of batches would only add noise
        fq.qat.freeze_batch_norms(prepared)
    finetune(prepared, given.train, epochs, rate, mirrored=given.name != "digits")
    frozen = fq.convert(prepared)
    fq.lower(frozen, "tflite").save(path)
    executed = measure(LiteRTModel(path), given.test)
    return Outcome(measure(frozen, given.test), executed, path.stat().st_size)


def calibrated(given: Task, config: fq.QuantConfig, path: Path) -> Measurement:
    """The same without training."""
    example, calibration = (given.train.images[:1],), given.train.images[:CALIBRATION]
    fq.compile(
        given.model,
        example,
        quantize=config,
        calibration=calibration.split(1),
        output=path,
        progress=False,
    )
    return measure(LiteRTModel(path), given.test)


def main(arguments: Sequence[str] | None = None, limit: int = 300) -> dict[str, float]:
    """Writes both files and prints their accuracies; returns them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="for the files")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rate", type=float, help="the learning rate to begin with")
    parser.add_argument("--bits", type=int, choices=tuple(PRECISIONS), default=8)
    parser.add_argument("--learned", choices=("lsq", "lsq+"), help="learn the steps")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given = task(limit)
    rate = options.rate or (0.0002 if options.bits == 8 else 0.01)
    plain = fq.QuantConfig(PRECISIONS[options.bits])
    config = fq.QuantConfig(PRECISIONS[options.bits], learned=options.learned)
    stem = options.folder / f"{given.name}.int{options.bits}"
    reference = measure(given.model, given.test)
    ptq = calibrated(given, plain, Path(f"{stem}.ptq.tflite"))
    outcome = trained(given, config, options.epochs, rate, Path(f"{stem}.qat.tflite"))
    result = Table(title=f"{given.name}, weights of {options.bits} bits", title_justify="left")
    for heading in ("program", "accuracy"):
        result.add_column(heading)
    rows = {
        "float, torch": reference.accuracy,
        "calibrated, LiteRT": ptq.accuracy,
        "trained, simulated": outcome.simulated.accuracy,
        "trained, LiteRT": outcome.executed.accuracy,
    }
    for name, accuracy in rows.items():
        result.add_row(name, f"{accuracy:.1%}")
    console.print(result)
    console.print(f"wrote {stem}.qat.tflite, {outcome.bytes / 1000:.0f} kB")
    return rows


if __name__ == "__main__":
    main()
