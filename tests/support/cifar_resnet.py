"""The ResNet of the CIFAR-10 experiments: 3x3 convolutions, parameterless shortcuts.

Where the width doubles, the shortcut takes every second pixel and pads the channels with zeros on
both sides, so it exercises strided slices and constant padding next to the residual additions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.missing = (width - width_in) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.missing:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.missing, self.missing))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels; 3 blocks a stage make the ResNet-20."""

    def __init__(self, blocks_per_stage: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks_per_stage)
        self.layer2 = _stage(16, 32, 2, blocks_per_stage)
        self.layer3 = _stage(32, 64, 2, blocks_per_stage)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(width_in: int, width: int, stride: int, blocks: int) -> nn.Sequential:
    first = Block(width_in, width, stride)
    return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))
