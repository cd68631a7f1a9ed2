"""Two-operand arithmetic, comparisons and logic against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.kernels.selection import Kernels
from tests.backends.tflite.dialect.one_operator import Draw, Stored, run_tfl

KERNELS = ("reference", "optimized", "xnnpack")
SHAPES = [((2, 5, 5, 16), (2, 5, 5, 16)), ((2, 5, 5, 16), (1, 1, 1, 16)), ((4, 1, 6), (3, 6))]
INT8 = [tfl.add, tfl.sub, tfl.mul]
ACTIVATIONS = ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", INT8)
@pytest.mark.parametrize("seed", range(6))
def test_arithmetic_int8(function: Callable[..., Any], seed: int, kernels: Kernels) -> None:
    draw = Draw(seed)
    left, right = SHAPES[seed % len(SHAPES)]
    span = (0.05, 2.0) if function is tfl.mul else (0.02, 0.2)
    both = run_tfl(
        function,
        draw.value(*left),
        draw.value(*right),
        fused_activation_function=ACTIVATIONS[seed % len(ACTIVATIONS)],
        out=draw.out(span),
        kernels=kernels,
    )
    both.assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", INT8)
def test_arithmetic_with_a_constant(function: Callable[..., Any], kernels: Kernels) -> None:
    draw = Draw(20)
    constant = Stored(draw.value(8))
    run_tfl(function, draw.value(2, 3, 8), constant, out=draw.out(), kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
@pytest.mark.parametrize("function", INT8)
def test_arithmetic_int16(function: Callable[..., Any], kernels: Kernels) -> None:
    draw = Draw(21)
    x, y = (draw.value(2, 5, 16, dtype=torch.int16) for _ in range(2))
    run_tfl(function, x, y, out=draw.out((1e-4, 4e-4), "int16"), kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
@pytest.mark.parametrize("seed", range(4))
def test_squared_difference_int8(seed: int, kernels: Kernels) -> None:
    draw = Draw(seed)
    x, y = draw.value(4, 40), draw.value(4, 40)
    run_tfl(tfl.squared_difference, x, y, out=draw.out((0.02, 2.0)), kernels=kernels).assert_equal()


@pytest.mark.parametrize("function", [tfl.maximum, tfl.minimum])
def test_extrema_int8(function: Callable[..., Any]) -> None:
    draw = Draw(22)
    x = draw.value(4, 40, scale=0.1, zero_point=3)
    y = draw.value(40, scale=0.1, zero_point=3)
    run_tfl(function, x, y).assert_equal()


FLOAT = [
    tfl.add,
    tfl.sub,
    tfl.mul,
    tfl.div,
    tfl.maximum,
    tfl.minimum,
    tfl.squared_difference,
    tfl.floor_div,
    tfl.floor_mod,
]


@pytest.mark.parametrize("function", FLOAT)
@pytest.mark.parametrize("shapes", SHAPES)
def test_arithmetic_float(
    function: Callable[..., Any], shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    draw = Draw(23)
    run_tfl(function, draw.real(*shapes[0]), draw.real(*shapes[1])).assert_close()


def test_pow_and_atan2_float() -> None:
    draw = Draw(24)
    run_tfl(tfl.pow, draw.real(4, 5).abs() + 0.1, draw.real(4, 5)).assert_close()
    run_tfl(tfl.atan2, draw.real(4, 5), draw.real(4, 5)).assert_close()


@pytest.mark.parametrize("function", [tfl.add, tfl.sub, tfl.mul, tfl.div, tfl.maximum])
def test_arithmetic_of_plain_integers(function: Callable[..., Any]) -> None:
    draw = Draw(25)
    x = draw.integers(4, 9, dtype=torch.int32) // 100000
    y = (draw.integers(4, 9, dtype=torch.int32) // 100000).abs() + 1
    run_tfl(function, x, y).assert_equal()


@pytest.mark.parametrize("function", [tfl.floor_div, tfl.floor_mod])
def test_floor_division_of_plain_integers(function: Callable[..., Any]) -> None:
    x = torch.arange(-9, 9, dtype=torch.int32)
    y = torch.tensor([2, -4, 5] * 6, dtype=torch.int32)
    run_tfl(function, x, y).assert_equal()


COMPARISONS = [
    tfl.equal,
    tfl.not_equal,
    tfl.less,
    tfl.less_equal,
    tfl.greater,
    tfl.greater_equal,
]


@pytest.mark.parametrize("function", COMPARISONS)
@pytest.mark.parametrize("seed", range(3))
def test_comparisons(function: Callable[..., Any], seed: int) -> None:
    draw = Draw(seed)
    x, y = draw.real(3, 7).round(), draw.real(7).round()
    run_tfl(function, x, y).assert_equal()
    run_tfl(function, draw.value(30, 7), draw.value(30, 7)).assert_equal()
    run_tfl(function, draw.value(9, scale=0.1), draw.value(9, scale=0.1)).assert_equal()


def test_logic() -> None:
    x, y = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    run_tfl(tfl.logical_and, x, y).assert_equal()
    run_tfl(tfl.logical_or, x, y).assert_equal()
    run_tfl(tfl.logical_not, x).assert_equal()
