"""Pooling, reductions, searches and resizing against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.kernels.selection import Kernels
from tests.backends.tflite.dialect.one_operator import Draw, run_tfl

KERNELS = ("reference", "optimized", "xnnpack")
PLAIN = ("reference", "optimized")
Function = Callable[..., Any]
WINDOWS: list[dict[str, Any]] = [
    {"filter_height": 2, "filter_width": 2, "stride_h": 2, "stride_w": 2},
    {"filter_height": 3, "filter_width": 3, "stride_h": 2, "stride_w": 2, "padding": "SAME"},
    {"filter_height": 3, "filter_width": 2, "padding": "SAME", "fused_activation_function": "RELU"},
    {"filter_height": 9, "filter_width": 7, "fused_activation_function": "RELU6"},
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", [tfl.max_pool_2d, tfl.average_pool_2d])
@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_pooling_int8(function: Function, window: int, kernels: Kernels) -> None:
    x = Draw(window).value(2, 9, 7, 12)
    run_tfl(function, x, kernels=kernels, **WINDOWS[window]).assert_equal()


@pytest.mark.parametrize("function", [tfl.max_pool_2d, tfl.average_pool_2d])
@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_pooling_float(function: Function, window: int) -> None:
    run_tfl(function, Draw(window).real(2, 9, 7, 12), **WINDOWS[window]).assert_close()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@pytest.mark.parametrize("function", [tfl.max_pool_2d, tfl.average_pool_2d])
def test_pooling_of_other_integers(function: Function, dtype: torch.dtype) -> None:
    x = Draw(1).value(2, 9, 7, 12, dtype=dtype)
    run_tfl(function, x, **WINDOWS[1]).assert_equal()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_mean_of_other_integers(dtype: torch.dtype) -> None:
    x = Draw(2).value(2, 7, 6, 5, dtype=dtype, zero_point=120)
    out = QType(str(dtype).removeprefix("torch."), x.one_scale / 4, 0)
    run_tfl(tfl.mean, x, (1, 2), out=out).assert_equal()


@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_root_mean_square_pooling(window: int) -> None:
    run_tfl(tfl.l2_pool_2d, Draw(window).real(2, 9, 7, 12), **WINDOWS[window]).assert_close()


AXES: list[tuple[tuple[int, ...], bool]] = [
    ((1, 2), False),
    ((1, 2), True),
    ((3,), False),
    ((-1,), True),
    ((2, 1), True),
    ((0, 1, 2, 3), False),
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("axis", "keep"), AXES)
@pytest.mark.parametrize("channels", [5, 16, 40])
def test_mean_int8(axis: tuple[int, ...], keep: bool, channels: int, kernels: Kernels) -> None:
    draw = Draw(channels)
    x = draw.value(2, 7, 6, channels, zero_point=-6)
    out = QType("int8", x.one_scale * draw.number(0.1, 0.4), 4)
    run_tfl(tfl.mean, x, axis, keep_dims=keep, out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("function", [tfl.mean, tfl.sum, tfl.reduce_max, tfl.reduce_min])
@pytest.mark.parametrize(("axis", "keep"), AXES)
def test_reductions_float(function: Function, axis: tuple[int, ...], keep: bool) -> None:
    run_tfl(function, Draw(1).real(2, 7, 6, 5), axis, keep_dims=keep).assert_close(1e-4)


def test_reduce_prod_float() -> None:
    run_tfl(tfl.reduce_prod, Draw(2).real(2, 7, 6), (1, 2)).assert_close()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", [tfl.reduce_max, tfl.reduce_min])
def test_extrema_int8(function: Function, kernels: Kernels) -> None:
    run_tfl(function, Draw(3).value(2, 7, 6, 5), (1, 2), kernels=kernels).assert_equal()


@pytest.mark.parametrize("function", [tfl.reduce_any, tfl.reduce_all])
def test_reductions_bool(function: Function) -> None:
    x = Draw(4).real(2, 3, 4) > 0.8
    run_tfl(function, x, (1, 2)).assert_equal()


@pytest.mark.parametrize("function", [tfl.arg_max, tfl.arg_min])
@pytest.mark.parametrize("output_type", ["INT32", "INT64"])
def test_arg_extrema(function: Function, output_type: str) -> None:
    draw = Draw(5)
    run_tfl(function, draw.real(3, 40), 1, output_type=output_type).assert_equal()
    run_tfl(function, draw.value(3, 4, 400), 2, output_type=output_type).assert_equal()


def test_topk() -> None:
    draw = Draw(6)
    run_tfl(tfl.topk_v2, draw.real(3, 40), 5).assert_equal()
    run_tfl(tfl.topk_v2, draw.value(3, 400), 7).assert_equal()


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_cumsum(exclusive: bool, reverse: bool) -> None:
    x = Draw(7).real(3, 9)
    run_tfl(tfl.cumsum, x, 1, exclusive=exclusive, reverse=reverse).assert_close()
    ints = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    run_tfl(tfl.cumsum, ints, 0, exclusive=exclusive, reverse=reverse).assert_equal()


CENTERS = [(False, False), (True, False), (False, True)]
SIZES = [(10, 14), (13, 5), (5, 7), (3, 4), (1, 1)]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("align", "half"), CENTERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [tfl.resize_bilinear, tfl.resize_nearest_neighbor])
def test_resize_int8(
    function: Function, size: tuple[int, int], align: bool, half: bool, kernels: Kernels
) -> None:
    x = Draw(8).value(2, 5, 7, 3)
    both = run_tfl(function, x, size, align_corners=align, half_pixel_centers=half, kernels=kernels)
    both.assert_equal()


@pytest.mark.parametrize(("align", "half"), CENTERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [tfl.resize_bilinear, tfl.resize_nearest_neighbor])
def test_resize_float(function: Function, size: tuple[int, int], align: bool, half: bool) -> None:
    x = Draw(9).real(2, 5, 7, 3)
    run_tfl(function, x, size, align_corners=align, half_pixel_centers=half).assert_close()
