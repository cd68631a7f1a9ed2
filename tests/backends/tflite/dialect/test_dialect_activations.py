"""Activations, normalizations and elementary functions against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.kernels.selection import Kernels
from tests.backends.tflite.dialect.one_operator import Draw, Stored, run_tfl

KERNELS = ("reference", "optimized", "xnnpack")
PROBABILITY = QType("int8", 1 / 256, -128)
ALL = torch.arange(-128, 128, dtype=torch.int8)
Function = Callable[..., Any]


def every_integer(scale: float, zero_point: int) -> Any:
    return tfl.bind(ALL.clone(), out=QType("int8", scale, zero_point))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "function",
    [tfl.relu, tfl.relu6, tfl.relu_n1_to_1, tfl.hard_swish, tfl.tanh, tfl.gelu, tfl.exp],
)
def test_functions_int8(function: Function, seed: int, kernels: Kernels) -> None:
    draw = Draw(seed)
    x = every_integer(draw.number(0.005, 0.1), draw.integer(-128, 127))
    run_tfl(function, x, out=draw.out((0.01, 0.1)), kernels=kernels).assert_equal()


@pytest.mark.parametrize(
    ("function", "options"),
    [(tfl.relu, {}), (tfl.relu6, {}), (tfl.leaky_relu, {"alpha": 0.3}), (tfl.abs, {})],
)
def test_rectifiers_int16(function: Function, options: dict[str, Any]) -> None:
    draw = Draw(30)
    x = draw.value(500, dtype=torch.int16)
    run_tfl(function, x, out=QType("int16", 2e-4, 0), **options).assert_equal()


@pytest.mark.parametrize(
    "function", [tfl.relu, tfl.relu6, tfl.hard_swish, tfl.tanh, tfl.gelu, tfl.logistic]
)
def test_functions_uint8(function: Function) -> None:
    x = tfl.bind(torch.arange(256).to(torch.uint8), out=QType("uint8", 0.03, 120))
    out = QType("uint8", 1 / 256, 0) if function is tfl.logistic else QType("uint8", 0.02, 60)
    run_tfl(function, x, out=out).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("scale", [0.01, 0.0353, 0.2])
def test_logistic_int8(scale: float, kernels: Kernels) -> None:
    for zero_point in (-128, -3, 127):
        x = every_integer(scale, zero_point)
        run_tfl(tfl.logistic, x, out=PROBABILITY, kernels=kernels).assert_equal()


def test_elu_int8() -> None:
    x, out = every_integer(0.03, 4), QType("int8", 0.02, -60)
    run_tfl(tfl.elu, x, out=out, kernels="optimized").assert_equal()


def test_elu_int8_in_xnnpack_differs_only_at_ties() -> None:
    """How the delegate rounds exact halves is not known; a ratio of 1.5 has many."""
    no_ties, out = every_integer(0.0317, 4), QType("int8", 0.0213, -60)
    run_tfl(tfl.elu, no_ties, out=out, kernels="xnnpack").assert_equal()
    ties, out = every_integer(0.03, 4), QType("int8", 0.02, -60)
    share, most = run_tfl(tfl.elu, ties, out=out, kernels="xnnpack").steps()
    assert most <= 1 and share < 0.05


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.3, -0.2])
def test_leaky_relu_int8(alpha: float, kernels: Kernels) -> None:
    draw = Draw(31)
    x = every_integer(0.03, 4)
    out = draw.out((0.02, 0.05))
    run_tfl(tfl.leaky_relu, x, alpha=alpha, out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
def test_prelu_int8(kernels: Kernels) -> None:
    draw = Draw(32)
    alpha = Stored(draw.value(1, 1, 8))
    run_tfl(
        tfl.prelu, draw.value(2, 6, 6, 8), alpha, out=draw.out((0.02, 0.2)), kernels=kernels
    ).assert_equal()


@pytest.mark.parametrize("function", [tfl.log, tfl.sqrt, tfl.rsqrt])
@pytest.mark.parametrize("seed", range(3))
def test_functions_of_positive_int8(function: Function, seed: int) -> None:
    draw = Draw(seed)
    values = torch.arange(-127, 128, dtype=torch.int8)
    x = tfl.bind(values, out=QType("int8", draw.number(0.01, 0.1), -128))
    run_tfl(function, x, out=draw.out((0.01, 0.05))).assert_equal()


def test_abs_int8() -> None:
    draw = Draw(33)
    run_tfl(tfl.abs, every_integer(0.03, 4), out=draw.out((0.02, 0.05))).assert_equal()


def test_neg_int8() -> None:
    values = torch.arange(-127, 128, dtype=torch.int8)
    run_tfl(tfl.neg, tfl.bind(values, out=QType("int8", 0.03, 0))).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("scale", [0.005, 0.05, 0.2, 1.0])
def test_softmax_int8(scale: float, kernels: Kernels) -> None:
    draw = Draw(34)
    for columns in (2, 10, 100):
        x = draw.value(40, columns, scale=scale)
        run_tfl(tfl.softmax, x, out=PROBABILITY, kernels=kernels).assert_equal()


FLOAT: list[Function] = [
    tfl.relu,
    tfl.relu6,
    tfl.relu_n1_to_1,
    tfl.relu_0_to_1,
    partial(tfl.leaky_relu, alpha=0.1),
    tfl.gelu,
    partial(tfl.gelu, approximate=True),
    tfl.hard_swish,
    tfl.logistic,
    tfl.tanh,
    tfl.softmax,
    partial(tfl.softmax, beta=2.0),
    tfl.log_softmax,
    tfl.l2_normalization,
    partial(tfl.local_response_normalization, radius=2, bias=1.0, alpha=1e-2, beta=0.75),
    tfl.exp,
    tfl.square,
    tfl.abs,
    tfl.neg,
    tfl.sign,
    tfl.sin,
    tfl.cos,
    tfl.floor,
]


def name_of(function: Function) -> str:
    if isinstance(function, partial):
        return f"{function.func.__name__}-{'-'.join(map(str, function.keywords.values()))}"
    return str(function.__name__)


@pytest.mark.parametrize("function", FLOAT, ids=name_of)
def test_functions_float(function: Function) -> None:
    x = Draw(35).real(2, 4, 5, 8, spread=3.0)
    whole, options = (
        (function.func, function.keywords) if isinstance(function, partial) else (function, {})
    )
    run_tfl(whole, x, **options).assert_close()


@pytest.mark.parametrize("function", [tfl.elu, tfl.ceil, tfl.round])
def test_functions_that_the_reference_lacks(function: Function) -> None:
    x = torch.cat([Draw(36).real(200, spread=3.0), torch.tensor([0.5, 1.5, -0.5, -2.5])])
    run_tfl(function, x, kernels="optimized").assert_close()


@pytest.mark.parametrize("function", [tfl.log, tfl.sqrt, tfl.rsqrt])
def test_functions_of_positive_floats(function: Function) -> None:
    run_tfl(function, Draw(37).real(200).abs() + 0.01).assert_close()


def test_prelu_float() -> None:
    draw = Draw(38)
    run_tfl(tfl.prelu, draw.real(2, 6, 6, 8), Stored(draw.real(1, 1, 8))).assert_close()
