"""Four small nets of the kinds that people ship, trained on handwritten digits in seconds.

    net, example = trained("transformer")

cnn           residual convolutions with batch norm
mobilenet     inverted residuals: depthwise, squeeze and excite, hardswish, batch norm of eps 1e-3
transformer   the picture as 16 tokens, two blocks of attention and GELU
lstm          the picture row by row
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.digits import DigitNet, Digits, digits, fit

EPOCHS = {"cnn": 6, "mobilenet": 15, "transformer": 40, "lstm": 40}


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole picture says of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, width // 4, 1)
        self.wide = nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = F.relu(self.narrow(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.wide(weight))


class InvertedResidual(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze and excite, project."""

    def __init__(self, width: int, expand: int = 3) -> None:
        super().__init__()
        inner = width * expand

        def norm(channels: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(channels, eps=1e-3)

        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            norm(inner),
            nn.Hardswish(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            norm(inner),
            nn.Hardswish(),
            SqueezeExcite(inner),
            nn.Conv2d(inner, width, 1, bias=False),
            norm(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class MobileNet(nn.Module):
    """A stem, two inverted residuals, a dropout and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16, eps=1e-3),
            nn.Hardswish(),
        )
        self.blocks = nn.Sequential(InvertedResidual(16), InvertedResidual(16))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits


class TransformerBlock(nn.Module):
    """Attention and a GELU layer, each behind a layer norm and with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def attention(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A vision transformer on patches of 2 by 2."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(TransformerBlock(width, heads), TransformerBlock(width, heads))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        logits: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return logits


class Recurrent(nn.Module):
    """An LSTM over the rows of the picture; the last state decides."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.squeeze(1))
        logits: Tensor = self.head(states[:, -1])
        return logits


NETS: dict[str, Callable[[], nn.Module]] = {
    "cnn": DigitNet,
    "mobilenet": MobileNet,
    "transformer": Transformer,
    "lstm": Recurrent,
}


class Trained(NamedTuple):
    """A net in eval mode, with the digits that it saw and those that it did not."""

    model: nn.Module
    seen: Digits
    unseen: Digits


@functools.cache
def trained(name: str) -> Trained:
    """One of `NETS`, trained with a fixed seed."""
    seen, unseen = digits()
    torch.manual_seed(0)
    return Trained(fit(NETS[name](), seen, EPOCHS[name]), seen, unseen)
