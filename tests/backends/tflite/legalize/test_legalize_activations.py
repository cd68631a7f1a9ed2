"""Activations in float and int8, torch against LiteRT."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from fxquant.backends.tflite.legalize import LegalizeTflite

from .cases import Case, case, each, normal
from .one_model import after_convolution, check, check_int8

X = normal(2, 4, 5) * 4
NAMES = """
relu relu6 hardtanh leaky_relu elu selu celu gelu silu hardswish hardsigmoid softplus mish
logsigmoid softsign tanhshrink hardshrink softshrink sigmoid tanh
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_activation(name: str) -> None:
    check(getattr(functional, name), X)


CASES = {
    "gelu-tanh": case(nn.GELU(approximate="tanh"), X),
    "elu-alpha": case(nn.ELU(0.5), X),
    "celu-alpha": case(nn.CELU(2.0), X),
    "threshold": case(nn.Threshold(0.1, 20), X),
    "softplus-beta": case(nn.Softplus(2.0, 5.0), normal(2, 40) * 6),
    "hardtanh-own": case(nn.Hardtanh(-0.5, 0.7), X),
    "hardtanh-relu6": case(nn.Hardtanh(0, 6), X),
    "prelu-one": case(nn.PReLU(), normal(2, 4, 5, 5)),
    "prelu-channels": case(nn.PReLU(4, 0.1), normal(2, 4, 5, 5)),
    "prelu-rows": case(nn.PReLU(4), normal(2, 4)),
    "prelu-sequence": case(nn.PReLU(4), normal(2, 4, 6)),
    "glu": case(nn.GLU(1), X),
    "glu-last": case(nn.GLU(), normal(2, 4, 6)),
    "rrelu": case(nn.RReLU(), X),
    "clamp": case(lambda x: x.clamp(-0.5, 0.5), X),
    "clamp-min": case(lambda x: x.clamp(min=-0.5), X),
    "clamp-max": case(lambda x: x.clamp(max=0.5), X),
    "clamp-zero": case(lambda x: x.clamp(min=0), X),
    "clamp-tensor": case(lambda x, y: torch.clamp(x, min=y), X, normal(2, 4, 5, seed=1)),
    "softmin": case(nn.Softmin(1), X),
    "softmax-2d": case(nn.Softmax2d(), normal(1, 4, 6, 6)),
    **{f"softmax-{dim}": case(nn.Softmax(dim), X) for dim in (0, 1, 2)},
    **{f"log-softmax-{dim}": case(nn.LogSoftmax(dim), X) for dim in (0, 1, 2)},
}


@each(CASES)
def test_form(found: Case) -> None:
    check(found.model, *found.inputs)


def test_gelu_forms_differ_and_each_is_the_right_one() -> None:
    x = torch.linspace(-4, 4, 801)
    check(nn.GELU(), x, tolerance=1e-6)
    check(nn.GELU(approximate="tanh"), x, tolerance=1e-6)


def test_large_arguments_do_not_overflow() -> None:
    x = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4])
    check(functional.softplus, x)
    check(functional.mish, x)
    check(functional.logsigmoid, x)


INT8 = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky-relu": nn.LeakyReLU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "prelu": nn.PReLU(8),
    "softmax": nn.Softmax(1),
    "log-softmax": nn.LogSoftmax(1),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
}


@each(INT8)
def test_int8(found: nn.Module) -> None:
    check_int8(after_convolution(found), normal(1, 4, 6, 6))


@pytest.mark.parametrize("least,greatest", [(-0.3, 0.4), (-0.3, None), (None, 0.4), (0.0, None)])
def test_int8_clamp(least: float | None, greatest: float | None) -> None:
    check_int8(after_convolution(lambda x: x.clamp(least, greatest)), normal(1, 4, 6, 6))


@pytest.mark.parametrize("name", ["hardswish", "softmax"])
def test_integer_kernels_on_request(name: str) -> None:
    options = LegalizeTflite(integer_only=True)
    final = check_int8(
        after_convolution(INT8[name]), normal(1, 4, 6, 6), options=options, steps=2.5
    )
    names = [getattr(node.target, "__name__", "") for node in final.graph.nodes]
    assert names.count("dequantize") == 1


def test_elu_has_no_reference_kernel() -> None:
    check_int8(after_convolution(nn.ELU()), normal(1, 4, 6, 6), kernels=("optimized",), equal=1e-6)
