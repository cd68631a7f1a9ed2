"""Small nets with attention, and ones whose features differ by orders of magnitude."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm attention and a feed-forward net, written with plain operators."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, length, width))
        result: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return result


class Transformer(nn.Module):
    """A convolution into tokens, blocks, and a classifier on their mean."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 2, stride=2)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(self.norm(tokens).mean(1))
        return logits


def transformer(seed: int = 0, *, outliers: float = 0.0, depth: int = 2) -> nn.Module:
    """A seeded net in eval mode; `outliers` is how much larger two features of the stream are.

    Trained transformers have such features: nearly constant, a hundred times as large as the
    others, and of no weight behind the norms. Eight bits for all features leave the others little.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(depth=depth).eval()
    if outliers:
        with torch.no_grad():
            model.stem.bias[0] += outliers  # type: ignore[index]
            model.stem.bias[1] -= outliers  # type: ignore[index]
            for norm in (m for m in model.modules() if isinstance(m, nn.LayerNorm)):
                norm.weight.mul_(outliers * (2 / len(norm.weight)) ** 0.5)
                norm.weight[:2] = 0
    return model


def pictures(count: int, *, batch: int = 4, seed: int = 1) -> list[Tensor]:
    """Seeded batches of 8 by 8."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 1, 8, 8, generator=generator) for _ in range(count)]
