"""int8 after training: which observer, weights per channel or per tensor, and parts left in float.

    python -m examples.ptq [folder for the files]

With `FXQUANT_DATA` (see CONTRIBUTING) a pretrained ResNet-20 on pictures of CIFAR-10, otherwise a
small net trained here on handwritten digits. Every variant is one `QuantConfig`; each file is run
by LiteRT on pictures that calibration did not see.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from examples.digits import Digits as Labelled
from examples.digits import LiteRTModel, digits, measure, train
from tests.support.data import data_dir, real_net

CALIBRATION = 64
console = Console(highlight=False)

VARIANTS: dict[str, fq.QuantConfig] = {
    "mse (the default)": fq.QuantConfig(),
    "minmax": fq.QuantConfig(activations=fq.QuantSpec("int8", observer="minmax")),
    "percentile": fq.QuantConfig(activations=fq.QuantSpec("int8", observer="percentile")),
    "per tensor weights": fq.QuantConfig(per_channel=False),
    "nothing corrected": fq.QuantConfig(equalize=False, correct_bias=False),
    "last layer in float": fq.QuantConfig(keep_float=("linear",)),
}


class Task(NamedTuple):
    """A trained net, inputs to calibrate with, and labelled pictures to judge by."""

    name: str
    model: nn.Module
    calibration: torch.Tensor
    test: Labelled


def task(limit: int) -> Task:
    """The real net where its data are, the digits elsewhere."""
    if data_dir() is None:
        seen, unseen = digits()
        test = Labelled(unseen.images[:limit], unseen.labels[:limit])
        return Task("digits", train(seen), seen.images[:CALIBRATION], test)
    net = real_net("cifar_resnet20", CALIBRATION + limit)
    test = Labelled(net.images[CALIBRATION:], net.labels[CALIBRATION:])
    return Task("cifar_resnet20", net.model, net.images[:CALIBRATION], test)


def main(
    folder: Path = Path(), limit: int = 236, variants: Sequence[str] = tuple(VARIANTS)
) -> dict[str, float]:
    """Writes and runs a file for each variant; returns their accuracies."""
    given = task(limit)
    example = (given.calibration[:1],)
    reference = measure(given.model, given.test)
    result = Table(title=f"int8 of {given.name}, run by LiteRT", title_justify="left")
    result.add_column("variant")
    for heading in ("accuracy", "as float", "file", "stayed float"):
        result.add_column(heading, justify="right")
    result.add_row("float, torch", f"{reference.accuracy:.1%}", "", "", "")
    found: dict[str, float] = {}
    for number, name in enumerate(variants):
        path = folder / f"{given.name}.{number}.tflite"
        lowered = fq.compile(
            given.model,
            example,
            quantize=VARIANTS[name],
            calibration=given.calibration.split(1),
            output=path,
            progress=False,
        )
        measured = measure(LiteRTModel(path), given.test)
        found[name] = measured.accuracy
        agrees = (measured.answers == reference.answers).float().mean().item()
        size, stayed = f"{path.stat().st_size / 1000:.0f} kB", len(lowered.report.stayed_float)
        result.add_row(name, f"{measured.accuracy:.1%}", f"{agrees:.1%}", size, str(stayed))
    console.print(result)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(*sys.argv[1:2]))
