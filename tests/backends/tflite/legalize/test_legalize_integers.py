"""Every rule on int16 activations and on uint8: torch, the tfl graph and LiteRT agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from fxquant.backends.tflite.dialect import use_kernels
from fxquant.backends.tflite.legalize import LegalizeTflite

from .cases import normal
from .one_model import after_convolution, check_int8, largest_step, quantized_core, run

PRECISIONS = ("int16x8", "uint8")
X = normal(1, 4, 6, 6)
Model = nn.Module | Callable[..., Any]


class Product(nn.Module):
    """x @ weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(6, 5) / 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def behind(model: Model, channels: int = 8) -> nn.Module:
    return after_convolution(model, channels)


LAYERS: dict[str, Model] = {
    "conv": behind(nn.Conv2d(8, 6, 3, padding=1)),
    "conv-stride": behind(nn.Conv2d(8, 6, 3, 2, 1)),
    "conv-groups": behind(nn.Conv2d(8, 8, 3, groups=4)),
    "conv-without-bias": behind(nn.Conv2d(8, 6, 1, bias=False)),
    "depthwise": behind(nn.Conv2d(8, 16, 3, padding=1, groups=8)),
    "transposed": behind(nn.ConvTranspose2d(8, 5, 3, 2, 1, output_padding=1)),
    "conv1d": behind(nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 6, 5, padding=2))),
    "conv-relu": behind(nn.Sequential(nn.Conv2d(8, 6, 3), nn.ReLU())),
    "conv-relu6": behind(nn.Sequential(nn.Conv2d(8, 6, 3), nn.ReLU6())),
    "conv-hardtanh": behind(nn.Sequential(nn.Conv2d(8, 6, 3), nn.Hardtanh())),
    "linear": behind(nn.Sequential(nn.Flatten(), nn.Linear(288, 10))),
    "linear-without-bias": behind(nn.Sequential(nn.Flatten(), nn.Linear(288, 10, bias=False))),
    "linear-of-rows": behind(nn.Linear(6, 5)),
    "matmul-constant": behind(Product()),
}
"""Layers with constant weights."""

OPERATORS: dict[str, Model] = {
    "add": lambda x: x + x.flip(2),
    "add-number": lambda x: x + 0.5,
    "add-relu": lambda x: torch.relu(x + x.flip(3)),
    "sub": lambda x: x - x.flip(2),
    "mul": lambda x: x * x.flip(2),
    "mul-number": lambda x: x * 0.3,
    "div-number": lambda x: x / 3.0,
    "neg": lambda x: -x,
    "square": lambda x: x**2,
    "maximum": lambda x: torch.maximum(x, x.flip(2)),
    "minimum": lambda x: torch.minimum(x, x.flip(2)),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
    "hardtanh-one": nn.Sequential(nn.MaxPool2d(2), nn.Hardtanh()),
    "clamp": lambda x: x.clamp(-0.2, 0.5),
    "leaky-relu": nn.LeakyReLU(0.1),
    "prelu": nn.PReLU(8),
    "prelu-one": nn.PReLU(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu-tanh": nn.GELU(approximate="tanh"),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "glu": nn.GLU(1),
    "softmax": nn.Softmax(1),
    "log-softmax": nn.LogSoftmax(1),
    "max-pool": nn.MaxPool2d(2),
    "max-pool-padded": nn.MaxPool2d(3, 2, 1),
    "average-pool": nn.AvgPool2d(2),
    "average-pool-padded": nn.AvgPool2d(3, 2, 1),
    "global-pool": nn.AdaptiveAvgPool2d(1),
    "adaptive-pool": nn.AdaptiveAvgPool2d(3),
    "mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum((2, 3)),
    "sum-of-channels": lambda x: x.sum(1, keepdim=True),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin((2, 3)),
    "cat": lambda x: torch.cat([x, x.flip(2)], 1),
    "cat-of-two-ranges": lambda x: torch.cat([x, 3 * x], 1),
    "stack": lambda x: torch.stack([x, x.flip(2)], 1),
    "pad": lambda x: functional.pad(x, (1, 2, 0, 1)),
    "reflect": nn.ReflectionPad2d(1),
    "replicate": nn.ReplicationPad2d(1),
    "reshape": nn.Flatten(),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "slice": lambda x: x[:, 2:5, ::2],
    "split": lambda x: x.split(3, 1)[1],
    "chunk": lambda x: x.chunk(2, 1)[0] + x.chunk(2, 1)[1],
    "unbind": lambda x: x.unbind(2)[1],
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "expand": lambda x: x[:, :1].expand(-1, 8, -1, -1),
    "roll": lambda x: x.roll(1, 2),
    "index": lambda x: x.index_select(1, torch.tensor([3, 1])),
    "pixel-shuffle": nn.PixelShuffle(2),
    "pixel-unshuffle": nn.PixelUnshuffle(2),
    "channel-shuffle": nn.ChannelShuffle(2),
    "nearest": nn.Upsample(scale_factor=2),
}
"""Operators behind a convolution."""

ONLY_INT16: dict[str, Model] = {
    "abs": torch.abs,
    "matmul": lambda x: x @ x.transpose(2, 3),
    "bmm": lambda x: torch.bmm(x[0], x[0].transpose(1, 2)),
}

STEPS = {
    "sum": 16.0,
    "sum-of-channels": 4.0,
    "cat-of-two-ranges": 3.01,
    "hardsigmoid": 2.01,
    "log-softmax": 1.5,
    "gelu": 4.0,
}
"""How many of the coarsest steps a result may be off; usually one, three of 16 bits."""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [*LAYERS, *OPERATORS])
def test_operator(name: str, precision: str) -> None:
    model = LAYERS[name] if name in LAYERS else behind(OPERATORS[name])
    usual = 3.01 if precision == "int16x8" else 1.01
    check_int8(model, X, precision=precision, steps=max(usual, STEPS.get(name, 0.0)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_elu_is_a_float_island(precision: str) -> None:
    """Only XNNPACK and the optimized kernels have ELU, and they round ties another way."""
    final = check_int8(behind(nn.ELU()), X, precision=precision, steps=1.5, kernels=())
    with use_kernels("optimized"):
        wanted = final(X)
    (found,) = run(final, "optimized", (X,))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(ONLY_INT16))
def test_operator_int16(name: str) -> None:
    check_int8(behind(ONLY_INT16[name]), X, precision="int16x8", steps=3.01)


def test_exponential_int16_is_coarse_where_it_is_steep() -> None:
    check_int8(behind(torch.exp), X, precision="int16x8", steps=6.0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("corners", [False, True])
def test_bilinear(corners: bool, precision: str) -> None:
    """The kernels have coordinates of 10 bits, and 16-bit steps are finer than those."""
    model = behind(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=corners))
    steps = 128.0 if precision == "int16x8" else 1.01
    check_int8(model, X, precision=precision, steps=steps)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_scale_for_all_weights(precision: str) -> None:
    """uint8 weights never have one a channel; int8 beside int16 have."""
    core = quantized_core(LAYERS["conv"], X, precision=precision)
    names = [getattr(node.target, "__name__", "") for node in core.graph.nodes]
    per_channel = names.count("fake_quantize_per_channel_affine.default")
    assert (per_channel == 2) == (precision == "int16x8")


def test_steps_of_int16_are_fine() -> None:
    core = quantized_core(LAYERS["conv"], X, precision="int16x8")
    assert largest_step(core) < 1e-3


INTEGER = ("hardswish", "hardsigmoid", "softmax", "sigmoid", "silu", "gelu")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", INTEGER)
def test_without_any_float_operator(name: str, precision: str) -> None:
    final = check_int8(
        behind(OPERATORS[name]),
        X,
        precision=precision,
        steps=6.0 if precision == "int16x8" else 2.5,
        options=LegalizeTflite(integer_only=True),
    )
    names = [getattr(node.target, "__name__", "") for node in final.graph.nodes]
    assert (names.count("quantize"), names.count("dequantize")) == (1, 1)


@pytest.mark.parametrize("scale", [2.0**-12, 2.0**-11])
@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh])
def test_a_scale_for_which_the_kernel_is_coarse_is_avoided(
    function: Callable[..., Any], scale: float
) -> None:
    top = scale * 32767
    model = after_convolution(lambda x: function(torch.clamp(x * 1e4, -top, top)))
    check_int8(model, X, precision="int16x8", steps=3.0)
