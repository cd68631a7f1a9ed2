"""Properties of scales, zero points and rounding, for any range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fxquant.quant.arithmetic import (
    SMALLEST_SCALE,
    Parameters,
    affine_parameters,
    dequantize,
    quantize,
    round_half_away,
    stored_scale,
    symmetric_parameters,
    wide_enough_for_bias,
)

reals = st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False)
ranges = st.sampled_from([(-128, 127), (-127, 127), (0, 255), (-8, 7), (-32768, 32767)])


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32)


@given(reals, reals, ranges)
def test_parameters_are_always_usable(a: float, b: float, integers: tuple[int, int]) -> None:
    low, high = sorted((a, b))
    for compute in (affine_parameters, symmetric_parameters):
        scale, zero_point = compute(tensor(low), tensor(high), *integers)
        assert scale.dtype == torch.float32 and zero_point.dtype == torch.int32
        assert torch.isfinite(scale) and float(scale) >= SMALLEST_SCALE
        assert integers[0] <= int(zero_point) <= integers[1]


@given(reals, reals, ranges)
def test_zero_is_exact(a: float, b: float, integers: tuple[int, int]) -> None:
    grid = affine_parameters(tensor(min(a, b)), tensor(max(a, b)), *integers)
    assert float(dequantize(quantize(tensor(0.0), grid, *integers), grid)) == 0.0


@given(st.floats(-1e3, 0, width=32), st.floats(0, 1e3, width=32), st.floats(0, 1))
def test_values_inside_the_range_are_off_by_a_step_at_most(
    low: float, high: float, place: float
) -> None:
    grid = affine_parameters(tensor(low), tensor(high), -128, 127)
    value = tensor(low + place * (high - low))
    error = (dequantize(quantize(value, grid, -128, 127), grid) - value).abs()
    # half a step of rounding, and at the ends half a step more of the rounded zero point
    assert float(error) <= float(grid.scale) * 1.001


@given(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32))
def test_symmetric_parameters_cover_both_ends(a: float, b: float) -> None:
    low, high = sorted((a, b))
    scale, _ = symmetric_parameters(tensor(low), tensor(high), -127, 127)
    assert float(scale) * 127 >= max(-low, high) * 0.999999


def test_unsigned_symmetric_ranges_have_their_zero_in_the_middle() -> None:
    grid = symmetric_parameters(tensor(-1.0), tensor(1.0), 0, 255)
    assert int(grid.zero_point) == 128
    assert float(grid.scale) == pytest.approx(1 / 127)


def test_channels_are_independent() -> None:
    low, high = torch.tensor([-1.0, 0.0, -0.5]), torch.tensor([1.0, 0.0, 4.0])
    whole = symmetric_parameters(low, high, -127, 127)
    alone = [symmetric_parameters(a, b, -127, 127).scale for a, b in zip(low, high, strict=True)]
    assert torch.equal(whole.scale, torch.stack(alone))


def test_a_channel_of_zeros_gets_a_positive_scale() -> None:
    scale, _ = symmetric_parameters(torch.zeros(2), torch.tensor([0.0, 1.0]), -127, 127)
    assert (scale > 0).all()


def test_quantize_saturates_and_rounds_ties_to_even() -> None:
    grid = Parameters(torch.tensor(1.0), torch.tensor(0, dtype=torch.int32))
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, 300.0, -300.0])
    assert quantize(values, grid, -128, 127).tolist() == [0, 2, 2, 0, 127, -128]


def test_quantize_along_an_axis() -> None:
    grid = Parameters(torch.tensor([1.0, 0.5]), torch.tensor([0, 10], dtype=torch.int32))
    values = torch.ones(3, 2)
    assert quantize(values, grid, -128, 127, axis=1).tolist() == [[1, 12]] * 3
    assert torch.equal(dequantize(quantize(values, grid, -128, 127, 1), grid, 1), values)


@given(st.floats(-1e6, 1e6, width=32))
def test_rounding_half_away_is_symmetric(value: float) -> None:
    assert round_half_away(tensor(value)) == -round_half_away(tensor(-value))


def test_rounding_half_away_of_the_largest_value_below_a_half() -> None:
    below = torch.nextafter(torch.tensor(0.5), torch.tensor(0.0))
    assert float(round_half_away(below)) == 0.0


def test_stored_scales_are_float32() -> None:
    scale = stored_scale(torch.tensor([1e-60, 0.1], dtype=torch.float64))
    assert scale.dtype == torch.float32
    assert float(scale[0]) == SMALLEST_SCALE


@given(st.floats(2.0**-100, 1, width=32), st.floats(-1e3, 1e3, width=32), st.floats(1e-6, 10))
def test_the_bias_fits_int32(scale: float, bias: float, input_scale: float) -> None:
    raised = wide_enough_for_bias(tensor(scale), tensor(bias), input_scale)
    assert float(raised) >= scale
    assert abs(bias) / (input_scale * float(raised)) <= 2.0**30 * 1.001
