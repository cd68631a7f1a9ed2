"""The search for the best grid, against brute force on the data themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxquant.quant.arithmetic import (
    Parameters,
    affine_parameters,
    dequantize,
    quantize,
    symmetric_parameters,
)
from fxquant.quant.histogram import Histogram, counted, empty_histogram, grown, sampled
from fxquant.quant.search import ErrorTable, least_squares


def histogram_of(values: Tensor) -> Histogram:
    return counted(grown(empty_histogram(), values.abs().max()), sampled(values))


def error_of(values: Tensor, grid: Parameters, qmin: int, qmax: int) -> float:
    rounded = dequantize(quantize(values, grid, qmin, qmax), grid)
    return float(((rounded - values).double() ** 2).mean())


def samples(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(50_000, generator=generator)
    return {
        "normal": normal,
        "relu": normal.relu(),
        "relu6": (2 * normal).clamp(0, 6),
        "shifted": normal + 3,
        "skewed": normal.exp(),
        "outlier": torch.cat([normal, torch.tensor([1000.0])]),
        "zeros": torch.zeros(100),
    }[kind]


KINDS = ("normal", "relu", "relu6", "shifted", "skewed", "outlier", "zeros")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("qmin", "qmax"), [(-128, 127), (-8, 7), (0, 255)])
def test_never_worse_than_clipping_nothing(kind: str, qmin: int, qmax: int) -> None:
    values = samples(kind)
    whole = affine_parameters(values.min(), values.max(), qmin, qmax)
    histogram = histogram_of(values)
    found = least_squares(histogram, whole, qmin, qmax, symmetric=False)
    # the histogram knows values up to the width of a bin
    most = error_of(values, whole, qmin, qmax) * 1.01 + float(histogram.width) ** 2
    assert error_of(values, found, qmin, qmax) <= most


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_four_bits_clip(kind: str) -> None:
    values = samples(kind)
    whole = affine_parameters(values.min(), values.max(), -8, 7)
    found = least_squares(histogram_of(values), whole, -8, 7, symmetric=False)
    assert error_of(values, found, -8, 7) < 0.6 * error_of(values, whole, -8, 7)


def test_a_symmetric_grid_stays_symmetric() -> None:
    values = samples("skewed")
    whole = symmetric_parameters(values.min(), values.max(), -127, 127)
    found = least_squares(histogram_of(values), whole, -127, 127, symmetric=True)
    assert int(found.zero_point) == 0
    assert float(found.scale) < float(whole.scale)


@pytest.mark.parametrize("kind", ["normal", "relu", "relu6", "shifted"])
def test_the_table_predicts_the_error_of_the_data(kind: str) -> None:
    values = samples(kind)
    table = ErrorTable(histogram_of(values), -128, 127)
    whole = affine_parameters(values.min(), values.max(), -128, 127)
    scale, zero_point = whole.scale.double().reshape(1), whole.zero_point.double().reshape(1, 1)
    predicted = float(table.errors(scale, zero_point))
    # exact zeros are spread over the first bin, which adds a constant far below a step
    slack = float(table.width) ** 2
    assert predicted == pytest.approx(error_of(values, whole, -128, 127), rel=0.03, abs=slack)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.floats(-3, 3), st.integers(0, 10))
def test_scale_follows_the_data(factor: float, shift: float, seed: int) -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(seed)) + shift
    small, large = (
        least_squares(
            histogram_of(v), affine_parameters(v.min(), v.max(), -128, 127), -128, 127, False
        )
        for v in (values, values * factor)
    )
    assert float(large.scale) == pytest.approx(float(small.scale) * factor, rel=0.15)
