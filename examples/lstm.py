"""An LSTM that reads pictures row by row: float, dynamic range, int8, int16x8, and a GRU beside it.

    python -m examples.lstm [folder for the files]

With `FXQUANT_DATA` (see CONTRIBUTING) MNIST, 28 steps of 28 numbers; otherwise scikit-learn's
digits, 8 steps of 8. Every file is run by LiteRT on pictures that neither training nor calibration
saw. In float and int8 an LSTM is LiteRT's own operator; "unrolled" it is one operator for each part
of each step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from examples.digits import Digits as Labelled
from examples.digits import LiteRTModel, digits, fit, measure
from fxquant import QuantConfig
from tests.support.data import data_dir

CALIBRATION = 64
console = Console(highlight=False)

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "float": ("lstm", {}),
    "float, unrolled": ("lstm", {"options": {"recurrent": "unrolled"}}),
    "dynamic": ("lstm", {"quantize": "dynamic"}),
    "dynamic, unrolled": (
        "lstm",
        {"quantize": QuantConfig("dynamic", recurrent="unrolled")},
    ),
    "int8": ("lstm", {"quantize": "int8"}),
    "int8, unrolled": ("lstm", {"quantize": QuantConfig(recurrent="unrolled")}),
    "int16x8": ("lstm", {"quantize": "int16x8"}),
    "GRU, float": ("gru", {}),
    "GRU, dynamic": ("gru", {"quantize": "dynamic"}),
    "GRU, int8": ("gru", {"quantize": "int8"}),
}
"""The kind of layer, and how it is compiled."""


class RowReader(nn.Module):
    """A recurrent layer over the rows of a picture, and a classifier on its last output."""

    def __init__(self, kind: str, width: int, hidden: int = 32) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.layer = layer(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.layer(rows)
        logits: torch.Tensor = self.head(outputs[:, -1])
        return logits


class Task(NamedTuple):
    """Pictures [n, rows, columns] in 0…1 with their labels, to train on and to judge by."""

    name: str
    train: Labelled
    test: Labelled


def task(limit: int) -> Task:
    """MNIST where it is to be had, the digits elsewhere."""
    folder = data_dir()
    if folder is None:
        seen, unseen = (Labelled(part.images[:, 0], part.labels) for part in digits())
        return Task("digits", seen, Labelled(unseen.images[:limit], unseen.labels[:limit]))
    data = np.load(folder / "mnist.npz")
    parts = [
        Labelled(
            torch.from_numpy(data[f"x_{name}"]).float() / 255,
            torch.from_numpy(data[f"y_{name}"]).long(),
        )
        for name in ("train", "test")
    ]
    return Task("mnist", parts[0], Labelled(parts[1].images[:limit], parts[1].labels[:limit]))


def train(kind: str, data: Labelled, epochs: int) -> nn.Module:
    """The trained net, in eval mode."""
    torch.manual_seed(0)
    return fit(RowReader(kind, data.images.shape[2]), data, epochs)


def main(
    folder: Path = Path(),
    limit: int = 500,
    epochs: int | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
) -> dict[str, float]:
    """Writes and runs a file for each variant; returns their accuracies."""
    given = task(limit)
    epochs = epochs or (4 if given.name == "mnist" else 20)
    kinds = dict.fromkeys(VARIANTS[name][0] for name in variants)
    models = {kind: train(kind, given.train, epochs) for kind in kinds}
    result = Table(title=f"{given.name} read row by row, run by LiteRT", title_justify="left")
    result.add_column("variant")
    for heading in ("accuracy", "as float", "file", "operators", "one picture"):
        result.add_column(heading, justify="right")
    found: dict[str, float] = {}
    references = {kind: measure(model, given.test) for kind, model in models.items()}
    for kind, reference in references.items():
        result.add_row(f"{kind.upper()}, torch", f"{reference.accuracy:.1%}")
    for number, name in enumerate(variants):
        kind, how = VARIANTS[name]
        path = folder / f"{given.name}.{number}.tflite"
        wanted = how.get("quantize", "float32")
        config = QuantConfig(wanted) if isinstance(wanted, str) else wanted
        lowered = fq.compile(
            models[kind],
            (given.train.images[:1],),
            calibration=given.train.images[:CALIBRATION].split(1) if config.needs_data else None,
            output=path,
            progress=False,
            **how,
        )
        measured = measure(LiteRTModel(path), given.test)
        found[name] = measured.accuracy
        agrees = (measured.answers == references[kind].answers).float().mean().item()
        result.add_row(
            name,
            f"{measured.accuracy:.1%}",
            f"{agrees:.1%}",
            f"{path.stat().st_size / 1000:.0f} kB",
            str(sum(lowered.report.operators.values())),
            f"{measured.microseconds:,.0f} µs",
        )
    console.print(result)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(*sys.argv[1:2]))
