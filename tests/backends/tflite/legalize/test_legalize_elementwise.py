"""Arithmetic and elementary functions, torch against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .cases import Case, case, each, inner, integers, normal, positive
from .one_model import after_convolution, check, check_int8, legalized

BINARY = """
add sub mul div maximum minimum atan2 fmod remainder floor_divide hypot copysign logaddexp fmax
fmin
"""


@pytest.mark.parametrize("name", BINARY.split())
def test_binary(name: str) -> None:
    function = getattr(torch, name)
    check(function, normal(2, 3, 4), normal(2, 3, 4, seed=1))
    check(function, normal(2, 3, 4), normal(2, 1, 4))


@pytest.mark.parametrize("name", ["pow", "xlogy"])
def test_binary_of_positive(name: str) -> None:
    check(getattr(torch, name), positive(2, 3, 4), positive(2, 1, 4))


X, Y, Z = normal(3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2)
CASES = {
    "add-alpha": case(lambda x, y: torch.add(x, y, alpha=2), X, Y),
    "sub-alpha": case(lambda x, y: torch.sub(x, y, alpha=0.5), X, Y),
    "rsub": case(lambda x: 1 - x, X),
    "add-number": case(lambda x: x + 2, X),
    "reciprocal": case(lambda x: 1 / x, X),
    "div-number": case(lambda x: x / 3, X),
    "div-floor": case(lambda x, y: torch.div(x, y, rounding_mode="floor"), X * 5, Y),
    "div-trunc": case(lambda x, y: torch.div(x, y, rounding_mode="trunc"), X * 5, Y),
    "floordiv-number": case(lambda x: x // 0.7, X * 5),
    "mod-number": case(lambda x: x % 0.7, X * 5),
    "square": case(lambda x: x**2, X),
    "cube": case(lambda x: x**3, X),
    "root": case(lambda x: x**0.5, positive(3, 4)),
    "inverse": case(lambda x: x**-1, X),
    "power": case(lambda x: x**1.7, positive(3, 4)),
    "exponential": case(lambda x: 2**x, X),
    "addcmul": case(lambda a, b, c: torch.addcmul(a, b, c, value=0.5), X, Y, Z),
    "addcdiv": case(torch.addcdiv, X, Y, Z),
    "lerp": case(lambda a, b: torch.lerp(a, b, 0.3), X, Y),
    "round-decimals": case(lambda x: torch.round(x, decimals=1), X),
}


@each(CASES)
def test_arithmetic(found: Case) -> None:
    check(found.model, *found.inputs)


A, B = integers(-9, 9, 3, 4), integers(1, 5, 3, 4)
INTEGERS = {
    "add": case(torch.add, A, B),
    "add-int32": case(torch.add, A.int(), B.int()),
    "sub": case(torch.sub, A, B),
    "mul": case(torch.mul, A, B),
    "div": case(lambda a, b: a / b, A, B),
    "floordiv": case(lambda a, b: a // b, A, B),
    "trunc": case(lambda a, b: torch.div(a, b, rounding_mode="trunc"), A, B),
    "mod": case(lambda a, b: a % b, A, B),
    "maximum": case(torch.maximum, A, B),
    "with-float": case(torch.add, A, X),
    "abs": case(torch.abs, A),
    "neg": case(torch.neg, A),
    "sign": case(torch.sign, A),
    "square": case(lambda a: a**2, A),
    "times-float": case(lambda a: a * 1.5, A),
    "sum": case(lambda a: a.sum(), A),
    "clamp": case(lambda a: a.clamp(-2, 3), A),
    "where": case(lambda a, b: torch.where(a > b, a, b), A, B),
}


@each(INTEGERS)
def test_whole_numbers(found: Case) -> None:
    check(found.model, *found.inputs)


UNARY = """
exp abs neg sin cos tan floor ceil round sign square reciprocal exp2 expm1 erf erfc trunc frac
sigmoid tanh relu atan sinh cosh asinh isnan isinf isfinite logical_not nan_to_num deg2rad sinc
signbit
"""


@pytest.mark.parametrize("name", UNARY.split())
def test_unary(name: str) -> None:
    check(getattr(torch, name), normal(3, 4, 5), tolerance=2e-5)


@pytest.mark.parametrize("name", ["log", "sqrt", "rsqrt", "log2", "log10", "log1p"])
def test_unary_of_positive(name: str) -> None:
    check(getattr(torch, name), positive(3, 4, 5))


@pytest.mark.parametrize("name", ["asin", "acos", "atanh"])
def test_unary_of_inner(name: str) -> None:
    check(getattr(torch, name), inner(3, 4))


def test_acosh() -> None:
    check(torch.acosh, positive(3, 4) + 1)


@pytest.mark.parametrize("name", ["log1p", "expm1", "asinh", "sinh", "erf"])
def test_no_cancellation_near_zero(name: str) -> None:
    function = getattr(torch, name)
    x = normal(64).abs() * 1e-6 + 1e-9
    found = legalized(function, x)(x)
    torch.testing.assert_close(found, function(x), rtol=3e-6, atol=0)


SHIFT = torch.linspace(-1, 1, 8).view(1, 8, 1, 1)
INT8: dict[str, Callable[[Tensor], Any]] = {
    "add-number": lambda x: x + 1.5,
    "mul-number": lambda x: x * 0.3,
    "sub-number": lambda x: x - 0.5,
    "rsub": lambda x: 1 - x,
    "div-number": lambda x: x / 3,
    "add-self": lambda x: x + x,
    "mul-self": lambda x: x * x,
    "add-relu": lambda x: torch.relu(x + x.flip(1)),
    "squeeze-excite": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "add-constant": lambda x: x + SHIFT,
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "square": lambda x: x**2,
    "neg": torch.neg,
    "abs": torch.abs,
    "exp": torch.exp,
}


@each(INT8)
def test_int8(found: Callable[[Tensor], Any]) -> None:
    check_int8(after_convolution(found), normal(1, 4, 6, 6))


def test_a_second_reader_of_a_relu_sees_the_value_before() -> None:
    check_int8(after_convolution(lambda x: x - torch.relu(x)), normal(1, 4, 6, 6))
    check(lambda x: x + 2 * torch.relu(x), normal(1, 8, 6, 6))
