"""From a PyTorch model to an int8 file in a minute: handwritten digits.

    train a small residual net → prepare → calibrate → convert → lower → save → run in LiteRT

    make demo        or        python examples/digits.py [folder for the files]

The step by step interface is in `quantize`, the short one in `float_file`. The files are run by the
ordinary LiteRT interpreter, one picture at a time, as a device would.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from fxquant.backends.base import Lowered

EPOCHS, BATCH, CALIBRATION = 12, 64, 128
console = Console(highlight=False)


class Block(nn.Module):
    """relu(x + two convolutions with batch norm)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(self.first(x)))


class DigitNet(nn.Module):
    """A residual net for pictures of 8 by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.fine = Block(16)
        self.down = nn.Sequential(
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.coarse = Block(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fine(self.stem(x))
        x = self.coarse(self.down(x))
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


class Digits(NamedTuple):
    """Pictures [n, 1, 8, 8] in 0…1 and their labels."""

    images: torch.Tensor
    labels: torch.Tensor


def digits() -> tuple[Digits, Digits]:
    """scikit-learn's 1,797 digits: three quarters to train on, the rest to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def train(data: Digits, epochs: int = EPOCHS) -> nn.Module:
    """The trained net, in eval mode."""
    torch.manual_seed(0)
    return fit(DigitNet(), data, epochs)


def fit(model: nn.Module, data: Digits, epochs: int) -> nn.Module:
    """An ordinary loop of training over shuffled batches; the model itself, in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters())
    steps = epochs * (len(data.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(data.labels))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data.images[rows]), data.labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def quantize(model: nn.Module, data: Digits) -> tuple[torch.fx.GraphModule, Lowered]:
    """The quantized graph, which PyTorch runs, and the program made from it."""
    example = (data.images[:1],)
    prepared = fq.prepare(model, example)
    fq.calibrate(prepared, data.images[:CALIBRATION].split(1))
    quantized = fq.convert(prepared)
    return quantized, fq.lower(quantized, "tflite")


def float_file(model: nn.Module, data: Digits, path: Path) -> None:
    """The same model in float32, for comparison."""
    fq.compile(model, (data.images[:1],), backend="tflite", output=path)


class LiteRTModel:
    """A file in the ordinary interpreter, with its default kernels, on one thread."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.interpreter.set_tensor(self.input, image.numpy())
        self.interpreter.invoke()
        return torch.from_numpy(np.array(self.interpreter.get_tensor(self.output)))


class Measurement(NamedTuple):
    """How often a program is right, what it said, and how long one picture takes."""

    accuracy: float
    answers: torch.Tensor
    microseconds: float


@torch.no_grad()
def measure(program: Callable[[torch.Tensor], torch.Tensor], data: Digits) -> Measurement:
    """Runs a program on every picture, one at a time."""
    answers, seconds = [], []
    for image in data.images.split(1):
        start = time.perf_counter()
        logits = program(image)
        seconds.append(time.perf_counter() - start)
        answers.append(logits.argmax(1))
    found = torch.cat(answers)
    accuracy = (found == data.labels).float().mean().item()
    return Measurement(accuracy, found, statistics.median(seconds) * 1e6)


def report(rows: list[tuple[str, Measurement, Path | None]]) -> Table:
    """The comparison as a table; agreement is with the first row."""
    table = Table(title="handwritten digits", title_justify="left")
    table.add_column("program")
    for heading in ("accuracy", "agrees with float", "file", "one picture"):
        table.add_column(heading, justify="right")
    reference = rows[0][1].answers
    for name, found, path in rows:
        agreement = (found.answers == reference).float().mean().item()
        size = f"{path.stat().st_size / 1000:.1f} kB" if path else ""
        table.add_row(
            name, f"{found.accuracy:.2%}", f"{agreement:.2%}", size, f"{found.microseconds:,.0f} µs"
        )
    return table


def main(folder: Path = Path()) -> float:
    """Runs the demo; returns the accuracy of the int8 file."""
    torch.set_num_threads(1)
    float_path, int8_path = folder / "digits.float.tflite", folder / "digits.int8.tflite"
    start = time.perf_counter()
    train_data, test_data = digits()
    model = train(train_data)
    count = sum(parameter.numel() for parameter in model.parameters())
    seconds = time.perf_counter() - start
    console.print(
        f"trained {count:,} parameters on {len(train_data.labels)} digits: {seconds:.1f} s"
    )

    start = time.perf_counter()
    quantized, lowered = quantize(model, train_data)
    lowered.save(int8_path)
    float_file(model, train_data, float_path)
    console.print(f"quantized and written: {time.perf_counter() - start:.1f} s")
    fq.verify(lowered, [test_data.images[:1]]).check()
    console.print(lowered.report)

    int8 = measure(LiteRTModel(int8_path), test_data)
    rows: list[tuple[str, Measurement, Path | None]] = [
        ("float, torch", measure(model, test_data), None),
        ("float, LiteRT", measure(LiteRTModel(float_path), test_data), float_path),
        ("int8 simulated", measure(quantized, test_data), None),
        ("int8 exact, torch", measure(lowered.graph_module, test_data), None),
        ("int8, LiteRT", int8, int8_path),
    ]
    console.print(report(rows))
    console.print(f"wrote {int8_path}")
    return int8.accuracy


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
