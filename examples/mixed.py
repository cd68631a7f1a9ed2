"""Eight bits where they do no harm: a small vision transformer on handwritten digits.

    train → all int8 → which layers harm → precisions under a budget → a YAML file → LiteRT

    python examples/mixed.py [folder for the files]

Two features of the residual stream are large and constant, as large trained transformers have them;
eight bits for all features leave the others little. `auto_mixed_precision` finds the few layers
that have to stay in float.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from examples.digits import Digits, LiteRTModel, digits

WIDTH, HEADS, BATCH, OUTLIER = 32, 4, 64, 100.0
console = Console(highlight=False)


class Block(nn.Module):
    """Attention and a feed-forward net, each added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, length, 3, HEADS, WIDTH // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, length, WIDTH))
        result: torch.Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return result


class DigitTransformer(nn.Module):
    """Patches of 2 by 2, two blocks, a linear layer on the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)
        with torch.no_grad():
            self.position[..., 0], self.position[..., 1] = OUTLIER, -OUTLIER
            for norm in (each for each in self.modules() if isinstance(each, nn.LayerNorm)):
                norm.weight.fill_(OUTLIER * (2 / WIDTH) ** 0.5)
                norm.weight[:2] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


def train(data: Digits, epochs: int) -> nn.Module:
    """The trained net, in eval mode."""
    torch.manual_seed(0)
    model = DigitTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(epochs):
        order = torch.randperm(len(data.labels))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data.images[rows]), data.labels[rows]).backward()
            optimizer.step()
    return model.eval()


class Outcome(NamedTuple):
    """What a file does in LiteRT."""

    accuracy: float
    sqnr: float
    size: int


@torch.no_grad()
def outcome(model: nn.Module, path: Path, data: Digits) -> Outcome:
    """Accuracy, and the signal-to-noise ratio of the logits against torch in dB."""
    program = LiteRTModel(path)
    found = torch.cat([program(image) for image in data.images.split(1)])
    wanted = model(data.images)
    accuracy = (found.argmax(1) == data.labels).float().mean().item()
    sqnr = 20 * torch.log10(wanted.norm() / (found - wanted).norm()).item()
    return Outcome(accuracy, sqnr, path.stat().st_size)


def main(
    folder: Path = Path(), *, epochs: int = 15, target: float = 30.0, pictures: int = 200
) -> dict[str, Outcome]:
    """Runs the example; returns what each file does."""
    torch.set_num_threads(1)
    train_data, test_data = digits()
    test_data = Digits(test_data.images[:pictures], test_data.labels[:pictures])
    model = train(train_data, epochs)
    example, data = (train_data.images[:1],), train_data.images[:32].split(8)

    prepared = fq.calibrate(fq.prepare(model, example), data, progress=False)
    console.print(fq.sensitivity(prepared, data).worst(5))
    config, report = fq.auto_mixed_precision(model, example, data, budget=fq.Budget(sqnr=target))
    console.print(report)
    fq.write_config(model, folder / "mixed.yaml", example_inputs=example, config=config)

    kept = fq.QuantConfig.from_yaml(folder / "mixed.yaml")
    found: dict[str, Outcome] = {}
    for name, quantize in (("float32", None), ("int8", fq.QuantConfig()), ("mixed", kept)):
        path = folder / f"digits.{name}.tflite"
        fq.compile(model, example, quantize=quantize, calibration=data, output=path, progress=False)
        found[name] = outcome(model, path, test_data)
    table = Table("file", "accuracy", "SQNR, dB", "bytes", title="in LiteRT")
    for name, each in found.items():
        table.add_row(name, f"{each.accuracy:.2%}", f"{each.sqnr:.1f}", f"{each.size:,}")
    console.print(table)
    return found


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
