"""The dialect on int16 and uint8 against LiteRT: every operator with such a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QTensor, QType
from fxquant.backends.tflite.kernels.selection import Kernels
from tests.backends.tflite.dialect.one_operator import Both, Draw, Stored, run_tfl

KERNELS: tuple[Kernels, ...] = ("reference", "optimized", "xnnpack")
INT16, UINT8 = torch.int16, torch.uint8
DTYPES = (INT16, UINT8)
ALL: dict[torch.dtype, torch.Tensor] = {
    INT16: torch.arange(-(1 << 15), 1 << 15).to(INT16),
    UINT8: torch.arange(1 << 8).to(UINT8),
}
UNIT = {INT16: QType("int16", 2.0**-15, 0), UINT8: QType("uint8", 1 / 256, 0)}
Function = Callable[..., Any]


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def every(dtype: torch.dtype, scale: float, zero_point: int = 120) -> QTensor:
    """Each integer that there is; `scale` is of 8 bits."""
    wide = dtype == INT16
    out = QType(name_of(dtype), scale / 256 if wide else scale, 0 if wide else zero_point)
    return tfl.bind(ALL[dtype].clone(), out=out)


def positive(dtype: torch.dtype, scale: float) -> QTensor:
    values = torch.arange(1, torch.iinfo(dtype).max + 1).to(dtype)
    return tfl.bind(values, out=QType(name_of(dtype), scale, 0))


def out_of(draw: Draw, dtype: torch.dtype, low: float, high: float) -> QType:
    """A result's grid; the bounds are scales of 8 bits."""
    divisor = 256 if dtype == INT16 else 1
    return draw.out((low / divisor, high / divisor), name_of(dtype))


class Weights(NamedTuple):
    """What a layer multiplies with."""

    weights: QTensor
    bias: QTensor


def weights_of(
    draw: Draw, x: QTensor, *shape: int, axis: int | None, channels: int, zero_point: int = 128
) -> Weights:
    """int8 beside int16, uint8 with one scale and a zero point beside uint8."""
    if x.dtype == INT16:
        weights = draw.weights(*shape, axis=axis, channels=channels)
    else:
        out = QType("uint8", draw.number(0.0005, 0.02), zero_point)
        weights = tfl.bind(draw.integers(*shape, dtype=UINT8), out=out)
    wide = torch.int64 if x.dtype == INT16 else torch.int32
    return Weights(weights, draw.bias(x, weights, channels, wide))


FORMS: list[dict[str, Any]] = [
    {},
    {"padding": "VALID", "fused_activation_function": "RELU6"},
    {"stride_h": 2, "stride_w": 2, "fused_activation_function": "RELU"},
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("dtype", DTYPES)
def test_conv_2d(dtype: torch.dtype, form: int, axis: int | None, kernels: Kernels) -> None:
    draw = Draw(form)
    x = draw.value(2, 9, 8, 16, dtype=dtype)
    w, b = weights_of(draw, x, 24, 3, 3, 16, axis=axis, channels=24, zero_point=101)
    options: dict[str, Any] = {
        "out": out_of(draw, dtype, 0.5, 3.0),
        "kernels": kernels,
        **FORMS[form],
    }
    run_tfl(tfl.conv_2d, x, Stored(w), Stored(b), **options).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("dtype", DTYPES)
def test_depthwise(dtype: torch.dtype, form: int, multiplier: int, kernels: Kernels) -> None:
    draw = Draw(form)
    x, channels = draw.value(2, 9, 8, 12, dtype=dtype), 12 * multiplier
    w, b = weights_of(draw, x, 1, 3, 3, channels, axis=3, channels=channels, zero_point=90)
    options: dict[str, Any] = {
        "out": out_of(draw, dtype, 0.1, 1.0),
        "kernels": kernels,
        **FORMS[form],
    }
    stored = Stored(w), Stored(b)
    both = run_tfl(tfl.depthwise_conv_2d, x, *stored, depth_multiplier=multiplier, **options)
    both.assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_conv(dtype: torch.dtype, kernels: Kernels) -> None:
    draw = Draw(7)
    x = draw.value(1, 5, 6, 8, dtype=dtype)
    w, b = weights_of(draw, x, 6, 3, 3, 8, axis=0, channels=6)
    options: dict[str, Any] = {
        "stride_h": 2,
        "stride_w": 2,
        "kernels": kernels,
        "output_shape": (1, 10, 12, 6),
    }
    out = out_of(draw, dtype, 0.5, 2.0)
    run_tfl(tfl.transpose_conv, x, Stored(w), Stored(b), out=out, **options).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fully_connected(dtype: torch.dtype, axis: int | None, kernels: Kernels) -> None:
    draw = Draw(8)
    x = draw.value(16, 48, dtype=dtype)
    w, b = weights_of(draw, x, 32, 48, axis=axis, channels=32, zero_point=140)
    out = out_of(draw, dtype, 0.5, 2.0)
    run_tfl(tfl.fully_connected, x, Stored(w), Stored(b), out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("right", [INT16, torch.int8])
def test_batch_matmul_int16(right: torch.dtype, kernels: Kernels) -> None:
    draw = Draw(9)
    x, y = draw.value(2, 5, 16, dtype=INT16), draw.value(2, 16, 7, dtype=right, zero_point=0)
    out = QType("int16", x.one_scale * y.one_scale * 3000, 0)
    both = run_tfl(tfl.batch_matmul, x, y, out=out, kernels=kernels)
    both.assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("function", [tfl.add, tfl.sub, tfl.mul])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic(dtype: torch.dtype, function: Function, seed: int, kernels: Kernels) -> None:
    """Odd sizes, as what the optimized loops leave over is rounded another way."""
    draw = Draw(seed)
    x, y = (draw.value(13, 997, dtype=dtype) for _ in range(2))
    out = out_of(draw, dtype, 0.02, 0.2)
    act = ("NONE", "RELU", "RELU6")[seed]
    both = run_tfl(function, x, y, out=out, kernels=kernels, fused_activation_function=act)
    both.assert_equal()
    run_tfl(function, x, draw.value(997, dtype=dtype), out=out, kernels=kernels).assert_equal()


RECTIFIERS: list[tuple[Function, dict[str, Any]]] = [
    (tfl.relu, {}),
    (tfl.relu6, {}),
    (tfl.leaky_relu, {"alpha": 0.3}),
    (tfl.leaky_relu, {"alpha": -0.02}),
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("function", "options"), RECTIFIERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rectifiers(
    dtype: torch.dtype, function: Function, options: dict[str, Any], kernels: Kernels
) -> None:
    draw = Draw(30)
    out = out_of(draw, dtype, 0.01, 0.1)
    run_tfl(function, every(dtype, 0.03), out=out, kernels=kernels, **options).assert_equal()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_prelu(dtype: torch.dtype, kernels: Kernels) -> None:
    """16-bit data want slopes of 8 bits."""
    draw = Draw(32)
    slopes = draw.value(1, 1, 8, dtype=torch.int8 if dtype == INT16 else dtype, zero_point=0)
    x, out = draw.value(2, 6, 6, 8, dtype=dtype), out_of(draw, dtype, 0.02, 0.2)
    run_tfl(tfl.prelu, x, Stored(slopes), out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("scale", [0.005, 0.02, 0.0931])
@pytest.mark.parametrize("function", [tfl.logistic, tfl.tanh])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoids(dtype: torch.dtype, function: Function, scale: float, kernels: Kernels) -> None:
    out = QType("uint8", 1 / 128, 128) if (function, dtype) == (tfl.tanh, UINT8) else UNIT[dtype]
    run_tfl(function, every(dtype, scale), out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
@pytest.mark.parametrize("scale", [0.004, 0.02, 0.06])
def test_interpolated_functions(scale: float, kernels: Kernels) -> None:
    x = every(INT16, scale)
    top = x.one_scale * 32767
    results = {tfl.exp: float(torch.tensor(top).exp()), tfl.gelu: top, tfl.abs: top * 1.1}
    for function, greatest in results.items():
        out = QType("int16", float(torch.tensor(greatest / 32767)), 0)
        run_tfl(function, x, out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
@pytest.mark.parametrize("function", [tfl.log, tfl.sqrt, tfl.rsqrt])
def test_functions_of_positive_int16(function: Function, kernels: Kernels) -> None:
    draw = Draw(3)
    for scale in (1e-4, 7.3e-4):
        out = draw.out((2e-4, 2e-3), "int16")
        run_tfl(function, positive(INT16, scale), out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("scale", [0.005, 0.05, 0.2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(dtype: torch.dtype, scale: float, kernels: Kernels) -> None:
    draw = Draw(34)
    for columns in (2, 10, 100):
        wide = dtype == INT16
        x = draw.value(40, columns, dtype=dtype, scale=scale / 256 if wide else scale)
        run_tfl(tfl.softmax, x, out=UNIT[dtype], kernels=kernels).assert_equal()


@pytest.mark.parametrize("function", [tfl.hard_swish, tfl.gelu, tfl.relu_n1_to_1])
def test_functions_uint8(function: Function) -> None:
    run_tfl(function, every(UINT8, 0.03), out=QType("uint8", 0.02, 60)).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("axes", [(1, 2), (2, 1, 3), (3,)])
@pytest.mark.parametrize("keep_dims", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mean(dtype: torch.dtype, keep_dims: bool, axes: tuple[int, ...], kernels: Kernels) -> None:
    draw = Draw(2)
    x, out = draw.value(2, 7, 6, 37, dtype=dtype), out_of(draw, dtype, 0.005, 0.05)
    run_tfl(tfl.mean, x, axes, keep_dims=keep_dims, out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("centers", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_resizing(dtype: torch.dtype, centers: bool, kernels: Kernels) -> None:
    x = Draw(4).value(1, 5, 7, 6, dtype=dtype)
    for function in (tfl.resize_bilinear, tfl.resize_nearest_neighbor):
        options: dict[str, Any] = {
            "size": (11, 9),
            "half_pixel_centers": centers,
            "kernels": kernels,
        }
        run_tfl(function, x, **options).assert_equal()


def same_scale(dtype: torch.dtype, *shape: int, seed: int) -> QTensor:
    return Draw(seed).value(*shape, dtype=dtype, scale=0.01, zero_point=99)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_moving(dtype: torch.dtype, kernels: Kernels) -> None:
    x, y = (same_scale(dtype, 1, 4, 5, 6, seed=seed) for seed in (1, 2))
    window: dict[str, Any] = {"filter_height": 2, "filter_width": 2, "stride_h": 2, "stride_w": 2}
    results: list[Both] = [
        run_tfl(tfl.concatenation, [x, y], axis=3, kernels=kernels),
        run_tfl(tfl.maximum, x, y, kernels=kernels),
        run_tfl(tfl.minimum, x, y, kernels=kernels),
        run_tfl(tfl.pad, x, ((0, 0), (1, 2), (0, 1), (0, 0)), kernels=kernels),
        run_tfl(tfl.reshape, x, (1, 120), kernels=kernels),
        run_tfl(tfl.transpose, x, (0, 3, 1, 2), kernels=kernels),
        run_tfl(tfl.slice, x, (0, 1, 0, 2), (1, 2, 5, 3), kernels=kernels),
        run_tfl(tfl.reduce_max, x, (1, 2), kernels=kernels),
        run_tfl(tfl.reduce_min, x, (3,), kernels=kernels),
        run_tfl(tfl.mirror_pad, x, ((0, 0), (1, 1), (2, 1), (0, 0)), kernels=kernels),
        run_tfl(tfl.max_pool_2d, x, **window, kernels=kernels),
        run_tfl(tfl.average_pool_2d, x, **window, kernels=kernels),
    ]
    for both in results:
        both.assert_equal()


PAIRS = [
    (torch.int8, INT16),
    (INT16, torch.int8),
    (UINT8, INT16),
    (UINT8, torch.int8),
    (torch.int8, UINT8),
    (UINT8, UINT8),
    (INT16, INT16),
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_quantize_between_integers(
    before: torch.dtype, after: torch.dtype, seed: int, kernels: Kernels
) -> None:
    draw = Draw(seed)
    x, out = draw.value(5001, dtype=before), out_of(draw, after, 0.01, 0.2)
    run_tfl(tfl.quantize, x, out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
def test_uint8_and_int8_are_the_same_values(kernels: Kernels) -> None:
    x = tfl.bind(ALL[UINT8].clone(), out=QType("uint8", 1 / 255, 0))
    run_tfl(tfl.quantize, x, out=QType("int8", 1 / 255, -128), kernels=kernels).assert_equal()
