"""Layers in ONNX Runtime, in float and in int8."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backends.onnx.runtime_checks import check, check_int8

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(3, 4, 3, 2, 1), (2, 3, 9, 7)),
    "conv grouped": (nn.Conv2d(4, 8, 3, groups=2, dilation=2, bias=False), (1, 4, 9, 9)),
    "conv of one picture": (nn.Conv2d(3, 4, 1), (3, 5, 5)),
    "conv 1d": (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 9)),
    "conv 3d": (nn.Conv3d(2, 3, 2), (1, 2, 4, 5, 6)),
    "conv transposed": (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (1, 4, 5, 5)),
    "conv transposed 1d": (nn.ConvTranspose1d(2, 3, 4, 2), (1, 2, 5)),
    "linear": (nn.Linear(6, 4), (3, 6)),
    "linear of words": (nn.Linear(6, 4), (2, 5, 6)),
    "linear without bias": (nn.Linear(6, 4, bias=False), (2, 6)),
    "pool beyond the end": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (1, 2, 6, 8)),
    "pool dilated": (nn.MaxPool2d(2, 1, dilation=2), (1, 2, 6, 6)),
    "pool 1d": (nn.MaxPool1d(2), (1, 2, 6)),
    "average beyond the end": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (1, 2, 6, 8)),
    "average without zeros": (nn.AvgPool2d(3, 2, 1, True, False), (1, 2, 6, 8)),
    "average of the zeros": (nn.AvgPool2d(3, 2, 1), (1, 2, 7, 7)),
    "average by a number": (nn.AvgPool2d(2, divisor_override=3), (1, 2, 6, 6)),
    "adaptive": (nn.AdaptiveAvgPool2d((3, 2)), (1, 2, 7, 6)),
    "adaptive to one": (nn.AdaptiveAvgPool2d(1), (1, 2, 7, 6)),
    "upsample": (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 4, 5)),
    "upsample nearest": (nn.Upsample(scale_factor=1.5), (1, 2, 4, 6)),
    "pixel shuffle": (nn.PixelShuffle(2), (1, 8, 3, 4)),
    "pad": (nn.ConstantPad2d((1, 2, 0, 1), 0.0), (1, 2, 3, 4)),
    "reflection": (nn.ReflectionPad2d(2), (1, 2, 4, 5)),
    "batch norm": (nn.BatchNorm2d(3), (1, 3, 4, 4)),
    "layer norm": (nn.LayerNorm(6), (2, 3, 6)),
    "group norm": (nn.GroupNorm(2, 4), (2, 4, 3, 3)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 3)),
    "prelu": (nn.PReLU(3), (1, 3, 4, 4)),
    "gelu tanh": (nn.GELU(approximate="tanh"), (2, 8)),
    "lstm": (nn.LSTM(4, 3, bidirectional=True), (5, 2, 4)),
    "gru": (nn.GRU(4, 3, batch_first=True), (2, 5, 4)),
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), (1, 4, 8)),
}


def inputs_of(name: str) -> tuple[Tensor, ...]:
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(name)))
    return (x, x, x) if isinstance(layer, nn.MultiheadAttention) else (x,)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_float(name: str) -> None:
    check(LAYERS[name][0], *inputs_of(name))


FLOAT_ONLY = {"lstm", "gru", "attention", "batch norm"}


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in FLOAT_ONLY])
def test_a_layer_in_int8(name: str) -> None:
    check_int8(LAYERS[name][0], *inputs_of(name))


@pytest.mark.parametrize("opset", [13, 16, 18, 22])
@pytest.mark.parametrize("name", ["layer norm", "gelu tanh", "adaptive", "pixel shuffle"])
def test_opsets(name: str, opset: int) -> None:
    check(LAYERS[name][0], *inputs_of(name), options={"opset": opset})


def test_values_that_share_a_grid_are_joined() -> None:
    def joined(x: Tensor, y: Tensor) -> Tensor:
        a, b = torch.cat((x * 2, y + 1), 1).chunk(2, 1)
        return F.relu(a) + b.flip(-1)

    check_int8(joined, torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3))


def test_indices_of_several_kinds() -> None:
    rows, columns = torch.tensor([0, 2]), torch.tensor([1, 1])

    def picked(x: Tensor) -> tuple[Tensor, ...]:
        return x[rows], x[:, columns, rows], x[..., 1:4:2], x[rows, :, columns[0]], x.flip(1)

    check(picked, torch.randn(3, 4, 5))
