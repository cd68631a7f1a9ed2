"""Smaller files without calibration data: dynamic range, weights stored narrow, a text model.

    python -m examples.dynamic [folder for the files]

A net for pictures (with `FXQUANT_DATA` a pretrained ResNet-20, otherwise one trained here on
digits) and a small model of words with an embedding, trained here to tell which of two letters
comes first in a word. Nothing but the name of the precision changes from file to file; each is run
by LiteRT.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from examples.digits import Digits as Labelled
from examples.digits import LiteRTModel, Measurement, measure
from examples.ptq import Task, task

PRECISIONS = ("dynamic", "dynamic4", "int8_weights", "int4_weights", "float16")
LETTERS, LENGTH = 26, 8
console = Console(highlight=False)


class Words(nn.Module):
    """Whether "a" comes before "b" in a word: letters [n, 8] to logits [n, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(LETTERS, 32)
        self.places = nn.Parameter(torch.randn(LENGTH, 32) * 0.1)
        self.hidden = nn.Linear(LENGTH * 32, 64)
        self.head = nn.Linear(64, 2)

    def forward(self, word: torch.Tensor) -> torch.Tensor:
        x = (self.letters(word) + self.places).flatten(1)
        logits: torch.Tensor = self.head(F.relu(self.hidden(x)))
        return logits


def words(count: int, seed: int) -> Labelled:
    """Random words that hold one "a" and one "b" each."""
    generator = torch.Generator().manual_seed(seed)
    word = torch.randint(2, LETTERS, (count, LENGTH), generator=generator)
    places = torch.rand(count, LENGTH, generator=generator).argsort(1)
    rows = torch.arange(count)
    word[rows, places[:, 0]], word[rows, places[:, 1]] = 0, 1
    return Labelled(word, (places[:, 0] < places[:, 1]).long())


def text_task(limit: int) -> Task:
    """The model of words, trained here."""
    torch.manual_seed(0)
    model, data = Words(), words(2000, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(12):
        for rows in torch.randperm(len(data.labels)).split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(data.images[rows]), data.labels[rows]).backward()
            optimizer.step()
    return Task("words", model.eval(), data.images[:1], words(limit, 2))


def compare(given: Task, folder: Path, precisions: Sequence[str]) -> dict[str, float]:
    """Write and run a file for each precision; the accuracy of each by name."""
    example = (given.test.images[:1],)
    table = Table(title=given.name, title_justify="left")
    for heading in ("program", "accuracy", "agrees with float", "file"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    reference = measure(given.model, given.test)
    found: dict[str, float] = {}
    for name in ("float32", *precisions):
        path = folder / f"{given.name}.{name}.tflite"
        fq.compile(given.model, example, quantize=None if name == "float32" else name, output=path)
        ran = measure(LiteRTModel(path), given.test)
        table.add_row(name, *_figures(ran, reference, path))
        found[name] = ran.accuracy
    console.print(table)
    return found


def _figures(found: Measurement, reference: Measurement, path: Path) -> tuple[str, str, str]:
    agreement = (found.answers == reference.answers).float().mean().item()
    return f"{found.accuracy:.2%}", f"{agreement:.2%}", f"{path.stat().st_size / 1000:.1f} kB"


def main(
    folder: Path = Path(), limit: int = 200, precisions: Sequence[str] = PRECISIONS
) -> dict[str, dict[str, float]]:
    """Compares the precisions on both models; returns their accuracies in LiteRT."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = (task(limit), text_task(limit))
    return {each.name: compare(each, folder, precisions) for each in tasks}


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
