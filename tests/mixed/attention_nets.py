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
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A convolution into tokens, blocks, and a classifier on their mean."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 2, stride=2)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def transformer(seed: int = 0, *, outliers: float = 0.0, depth: int = 2) -> nn.Module:
    """A seeded net in eval mode; `outliers` makes some features of each block so much larger.

    Trained transformers have such features: a few channels of the residual stream and of the
    feed-forward net carry values a hundred times those of the others.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(depth=depth).eval()
        for block in model.blocks if outliers else ():
            assert isinstance(block, Block)
            with torch.no_grad():
                block.down.bias[:2] += outliers
                block.down.weight[2] *= outliers
    return model


def pictures(count: int, *, batch: int = 4, seed: int = 1) -> list[Tensor]:
    """Seeded batches of 8 by 8."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 1, 8, 8, generator=generator) for _ in range(count)]
