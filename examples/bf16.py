"""bfloat16: simulated in PyTorch, trained, and what of it goes into a file.

    python -m examples.bf16 [folder for the files]

A net for pictures (with `FXQUANT_DATA` a pretrained ResNet-20, otherwise one trained here on
digits) computes with weights and activations rounded to bfloat16; a net for digits is trained so.
No kernel of LiteRT computes in bfloat16, so the files hold the rounded weights, in one of three
storages, and compute in float32; the last one rounds activations too, by casts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from examples.digits import BATCH, DigitNet, Digits, LiteRTModel, digits, measure
from examples.ptq import task

BFLOAT16 = fq.QuantConfig("bfloat16")
FILES: Mapping[str, Mapping[str, Any]] = {
    "float32 storage": {},
    "float16 storage": {"bfloat16_storage": "float16"},
    "bfloat16 storage": {"bfloat16_storage": "bfloat16"},
    "activations rounded": {"round_activations": True},
}
console = Console(highlight=False)


def train(data: Digits, epochs: int) -> nn.Module:
    """A net that is trained with every weight and activation in bfloat16."""
    torch.manual_seed(0)
    model = fq.prepare_qat(DigitNet().train(), (data.images[:1],), BFLOAT16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        order = torch.randperm(len(data.labels))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data.images[rows]), data.labels[rows]).backward()
            optimizer.step()
    return model.eval()


def write(name: str, core: torch.fx.GraphModule, test: Digits, folder: Path) -> dict[str, float]:
    """A file of a bfloat16 graph for each storage; the accuracy of each in LiteRT."""
    table = Table(title=name, title_justify="left")
    for heading in ("program", "accuracy", "file"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    simulated = measure(core, test).accuracy
    table.add_row("bfloat16 simulated", f"{simulated:.2%}", "")
    found = {"simulated": simulated}
    for title, options in FILES.items():
        path = folder / f"{name}.{title.replace(' ', '-')}.tflite"
        fq.lower(core, "tflite", options=options).save(path)
        found[title] = measure(LiteRTModel(path), test).accuracy
        table.add_row(title, f"{found[title]:.2%}", f"{path.stat().st_size / 1000:.1f} kB")
    console.print(table)
    return found


def main(folder: Path = Path(), limit: int = 200, epochs: int = 6) -> dict[str, dict[str, float]]:
    """Rounds a trained net, and trains a rounded one; returns the accuracies of the files."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    given = task(limit)
    console.print(f"{given.name} in float32: {measure(given.model, given.test).accuracy:.2%}")
    example = (given.test.images[:1],)
    rounded = fq.convert(fq.prepare(given.model, example, BFLOAT16))
    seen, unseen = digits()
    trained = fq.convert(train(seen, epochs))  # type: ignore[arg-type]
    return {
        "rounded": write(f"{given.name}.rounded", rounded, given.test, folder),
        "trained": write("digits.trained", trained, Digits(*(x[:limit] for x in unseen)), folder),
    }


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
