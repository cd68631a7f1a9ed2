"""Whole graphs before and after functionalize, as text."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxquant.ir.printer import format_graph
from fxquant.passes.functionalize import Functionalize
from fxquant.tracing.trace import trace
from tests.conftest import Golden


class Picture(nn.Module):
    """The picture in the pass's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = x.view(1, -1)
        y.add_(1)
        return x


class Attention(nn.Module):
    """Self-attention with its projections in one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x, need_weights=False)[0]
        result: Tensor = self.norm(x + y)
        return result


class Residual(nn.Module):
    """Convolution, batch norm and an in-place activation, pooled and classified."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU6(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.relu(self.norm(self.conv(x)))
        y += x
        y = F.interpolate(y, scale_factor=0.5)
        left, right = y.chunk(2, dim=-1)
        pooled = torch.cat([right, left], -1).mean([2, 3])
        score = self.head(F.dropout(pooled, 0.1, self.training))
        return score, score.max(1).indices


class Recurrent(nn.Module):
    """A network with two outputs of one operator, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out, (hidden, _) = self.lstm(x)
        result: Tensor = out + hidden[-1].unsqueeze(1)
        return result


class Mask(nn.Module):
    """Writes through masks, slices and indices."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[x < 0] = 0
        x[:, ::2] *= 2
        x[:, 0, 1:] = x[:, 1, :-1].clone()
        return x


CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "picture": (Picture(), (1, 3, 8, 8)),
    "attention": (Attention(), (2, 4, 8)),
    "residual": (Residual(), (1, 4, 8, 8)),
    "recurrent": (Recurrent(), (2, 4, 8)),
    "mask": (Mask(), (2, 4, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_graph(name: str, golden: Golden) -> None:
    model, shape = CASES[name]
    model.eval()
    traced = trace(model, (torch.randn(shape),))
    before = format_graph(traced)
    graph_module = Functionalize().run(traced).graph_module
    golden(f"functionalize_{name}", f"{before}\n{format_graph(graph_module)}")
    x = torch.randn(shape)
    wanted = model(x)
    got = graph_module(x)
    pairs = zip(got, wanted, strict=True) if isinstance(wanted, tuple) else [(got, wanted)]
    assert all(torch.equal(one, other) for one, other in pairs)
