"""Normalizations, torch against LiteRT."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .cases import Case, case, each, normal
from .one_model import after_convolution, check, check_int8

IMAGE = normal(1, 4, 9, 11)


def _warm(norm: nn.Module, *shape: int) -> nn.Module:
    """A batch norm that has seen data."""
    norm.train()
    norm(normal(8, *shape) * 2 + 1)
    return norm.eval()


CASES = {
    "batch-1d": case(_warm(nn.BatchNorm1d(4), 4), normal(3, 4)),
    "batch-1d-sequence": case(_warm(nn.BatchNorm1d(4), 4, 5), normal(3, 4, 5)),
    "batch-2d": case(_warm(nn.BatchNorm2d(4), 4, 3, 3), IMAGE),
    "batch-3d": case(_warm(nn.BatchNorm3d(2), 2, 3, 3, 3), normal(1, 2, 3, 4, 5)),
    "batch-functional": case(
        lambda x: functional.batch_norm(x, torch.full((4,), 0.1), torch.full((4,), 2.0)), IMAGE
    ),
    "layer": case(nn.LayerNorm(8), normal(2, 3, 8)),
    "layer-two": case(nn.LayerNorm((3, 8)), normal(2, 3, 8)),
    "layer-plain": case(nn.LayerNorm(8, elementwise_affine=False), normal(2, 3, 8)),
    "group": case(nn.GroupNorm(2, 4), IMAGE),
    "group-one": case(nn.GroupNorm(1, 4), IMAGE),
    "group-each": case(nn.GroupNorm(4, 4), IMAGE),
    "group-sequence": case(nn.GroupNorm(2, 4), normal(2, 4, 7)),
    "group-rows": case(nn.GroupNorm(2, 4), normal(2, 4)),
    "instance": case(nn.InstanceNorm2d(4), IMAGE),
    "instance-affine": case(nn.InstanceNorm2d(4, affine=True), IMAGE),
    "instance-1d": case(nn.InstanceNorm1d(4), normal(2, 4, 7)),
    "instance-statistics": case(nn.InstanceNorm2d(4, track_running_stats=True), IMAGE),
    "rms": case(nn.RMSNorm(8), normal(2, 3, 8)),
}


@each(CASES)
def test_norm(found: Case) -> None:
    check(found.model, *found.inputs, tolerance=5e-6)


def test_int8_batch_norm() -> None:
    model = nn.Sequential(_warm(nn.BatchNorm2d(8), 8, 3, 3), nn.ReLU())
    check_int8(after_convolution(model), normal(1, 4, 6, 6))


def test_int8_layer_norm_is_a_float_island() -> None:
    check_int8(after_convolution(nn.LayerNorm(8)), normal(1, 4, 8, 8), steps=3, equal=1e-5)
