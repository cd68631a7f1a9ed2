"""A small residual net whose stream has two features far larger than the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 48
IGNORED = 2


class Wide(nn.Module):
    """Dense layers around a stream with large, nearly constant features that nobody reads.

    Eight bits over the whole range leave the other features little, so what reads or writes the
    stream needs more; the two layers beside it do not.
    """

    def __init__(self, large: float = 100.0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.third, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)
        with torch.no_grad():
            self.first.bias[0], self.first.bias[1] = large, -large
            for layer in (self.second, self.head):
                layer.weight[:, :IGNORED] = 0

    def forward(self, x: Tensor) -> Tensor:
        stream = self.first(x)
        stream = stream + self.third(F.relu(self.second(stream)))
        logits: Tensor = self.head(stream)
        return logits


def wide(seed: int = 0) -> nn.Module:
    """The seeded net in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Wide().eval()


def rows(count: int, *, batch: int = 8, seed: int = 1) -> list[Tensor]:
    """Seeded batches of 16 features."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 16, generator=generator) for _ in range(count)]
