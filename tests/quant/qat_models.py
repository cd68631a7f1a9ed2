"""Small nets with what makes training with rounding hard, and a loop that knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (3, 8, 8)


class Picture(nn.Module):
    """Conv and batch norm in all their places: skip, depthwise, gate, pre-activation, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depthwise_bn = nn.BatchNorm2d(8, eps=1e-3, momentum=0.03)
        self.gate = nn.Conv2d(8, 8, 1)
        self.pre = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 8, 1)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_bn(self.stem(x)))
        y = F.hardswish(self.depthwise_bn(self.depthwise(x)))
        x = x + y * F.hardsigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        x = self.last(F.relu(self.pre(x)))
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits


def example(batch: int = 2) -> tuple[Tensor]:
    """Inputs for `Picture`."""
    return (torch.randn(batch, *SHAPE),)


def with_signs(model: nn.Module) -> nn.Module:
    """Batch norms with statistics, and factors of both signs."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            for tensor in (module.running_mean, module.weight, module.bias):
                tensor.data.normal_(generator=generator)
            module.running_var.uniform_(0.2, 3.0, generator=generator)
    return model


def train(
    model: nn.Module,
    steps: int = 8,
    batch: Callable[[], Tensor] = lambda: torch.randn(6, *SHAPE),
    rate: float = 0.02,
) -> list[float]:
    """Train a model to tell the means of its inputs; returns the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    losses = []
    for _ in range(steps):
        x = batch()
        wanted = x.flatten(1).mean(1, keepdim=True) * 5
        loss = F.mse_loss(model(x).flatten(1)[:, :1], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
