"""Models that the tests of the command line name as `tests.cli.sample_models:…`."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """A small convolutional net with everything that the default pipeline folds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class TwoInputs(nn.Module):
    """Adds what two linear layers make of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(6, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = self.left(a) + self.right(b)
        return total


class Unsupported(nn.Module):
    """Calls an operation that no small device has, in three places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.special.bessel_j0(x)
        y = torch.special.bessel_j0(x + 1)
        z: torch.Tensor = torch.special.bessel_j0(x * y)
        return z


def make() -> Net:
    """A seeded `Net`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def broken() -> nn.Module:
    """A factory that fails."""
    raise RuntimeError("no such layer")


def not_a_model() -> int:
    """A factory of something else."""
    return 3


ready = make()
NUMBER = 3
