"""Convolutions and matrix products against LiteRT."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.kernels.selection import Kernels
from tests.backends.tflite.dialect.one_operator import Draw, Stored, run_tfl

KERNELS = ("reference", "optimized", "xnnpack")
FORMS: list[dict[str, Any]] = [
    {},
    {"padding": "VALID"},
    {"stride_h": 2, "stride_w": 2},
    {"stride_h": 2, "stride_w": 1, "padding": "VALID", "fused_activation_function": "RELU6"},
    {"dilation_h_factor": 2, "dilation_w_factor": 2, "fused_activation_function": "RELU"},
    {"fused_activation_function": "RELU_N1_TO_1"},
]


@pytest.mark.parametrize("form", range(len(FORMS)))
def test_conv_2d_float(form: int) -> None:
    draw = Draw(form)
    x, w, b = draw.real(2, 9, 8, 5), draw.real(7, 3, 3, 5), draw.real(7)
    run_tfl(tfl.conv_2d, x, Stored(w), Stored(b), **FORMS[form]).assert_close()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("form", range(len(FORMS)))
def test_conv_2d_int8(form: int, axis: int | None, kernels: Kernels) -> None:
    draw = Draw(form)
    x, w = draw.value(2, 9, 8, 16), draw.weights(24, 3, 3, 16, axis=axis, channels=24)
    b = draw.bias(x, w, 24, torch.int32)
    out = draw.out((0.5, 3.0))
    run_tfl(
        tfl.conv_2d, x, Stored(w), Stored(b), out=out, kernels=kernels, **FORMS[form]
    ).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
def test_conv_2d_grouped(kernels: Kernels) -> None:
    draw = Draw(3)
    x, w = draw.value(1, 8, 8, 16), draw.weights(8, 3, 3, 4, axis=0, channels=8)
    b = draw.bias(x, w, 8, torch.int32)
    run_tfl(
        tfl.conv_2d, x, Stored(w), Stored(b), out=draw.out((0.5, 3.0)), kernels=kernels
    ).assert_equal()


def test_conv_2d_grouped_float() -> None:
    draw = Draw(3)
    x, w, b = draw.real(1, 8, 8, 16), draw.real(8, 3, 3, 4), draw.real(8)
    run_tfl(tfl.conv_2d, x, Stored(w), Stored(b)).assert_close()


def test_conv_2d_of_many_channels_is_exact() -> None:
    """More than float32 can sum exactly: the channels are split."""
    draw = Draw(4)
    x, w = draw.value(1, 6, 6, 640), draw.weights(8, 3, 3, 640, axis=0, channels=8)
    b = draw.bias(x, w, 8, torch.int32)
    run_tfl(tfl.conv_2d, x, Stored(w), Stored(b), out=draw.out((1.0, 9.0))).assert_equal()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
def test_conv_2d_int16(kernels: Kernels) -> None:
    draw = Draw(5)
    x = draw.value(1, 8, 8, 16, dtype=torch.int16)
    w = draw.weights(24, 3, 3, 16, axis=0, channels=24)
    b = draw.bias(x, w, 24, torch.int64)
    out = draw.out((0.005, 0.01), "int16")
    run_tfl(tfl.conv_2d, x, Stored(w), Stored(b), out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("form", range(len(FORMS)))
def test_depthwise_int8(form: int, multiplier: int, kernels: Kernels) -> None:
    draw = Draw(form)
    x = draw.value(2, 9, 8, 12)
    channels = 12 * multiplier
    w = draw.weights(1, 3, 3, channels, axis=3, channels=channels)
    b = draw.bias(x, w, channels, torch.int32)
    form_options = dict(FORMS[form])
    if form_options.get("stride_h", 1) != form_options.get("stride_w", 1):
        form_options["stride_w"] = form_options["stride_h"]
    run_tfl(
        tfl.depthwise_conv_2d,
        x,
        Stored(w),
        Stored(b),
        depth_multiplier=multiplier,
        out=draw.out((0.1, 1.0)),
        kernels=kernels,
        **form_options,
    ).assert_equal()


@pytest.mark.parametrize("channels", [5, 8, 20])
def test_depthwise_rounds_the_last_channels_another_way(channels: int) -> None:
    draw = Draw(1)
    x = draw.value(4, 19, 19, channels)
    w = draw.weights(1, 3, 3, channels, axis=3, channels=channels)
    b = draw.bias(x, w, channels, torch.int32)
    run_tfl(
        tfl.depthwise_conv_2d,
        x,
        Stored(w),
        Stored(b),
        out=draw.out((0.2, 1.0)),
        kernels="optimized",
    ).assert_equal()


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_float(multiplier: int) -> None:
    draw = Draw(multiplier)
    x, w = draw.real(2, 9, 8, 6), draw.real(1, 3, 3, 6 * multiplier)
    b = draw.real(6 * multiplier)
    run_tfl(
        tfl.depthwise_conv_2d,
        x,
        Stored(w),
        Stored(b),
        stride_h=2,
        stride_w=2,
        depth_multiplier=multiplier,
    ).assert_close()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["NONE", "RELU"])
def test_fully_connected_int8(
    activation: str, bias: bool, axis: int | None, kernels: Kernels
) -> None:
    draw = Draw(7)
    x, w = draw.value(5, 4, 64), draw.weights(48, 64, axis=axis, channels=48)
    b = Stored(draw.bias(x, w, 48, torch.int32)) if bias else None
    run_tfl(
        tfl.fully_connected,
        x,
        Stored(w),
        b,
        out=draw.out((0.2, 2.0)),
        fused_activation_function=activation,
        keep_num_dims=True,
        kernels=kernels,
    ).assert_equal()


@pytest.mark.parametrize("keep", [True, False])
def test_fully_connected_float(keep: bool) -> None:
    draw = Draw(8)
    x, w, b = draw.real(5, 4, 64), draw.real(48, 64), draw.real(48)
    run_tfl(tfl.fully_connected, x, Stored(w), Stored(b), keep_num_dims=keep).assert_close()


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
def test_fully_connected_int16(kernels: Kernels) -> None:
    draw = Draw(9)
    x = draw.value(50, 64, dtype=torch.int16)
    w = draw.weights(48, 64, axis=None, channels=48)
    b = draw.bias(x, w, 48, torch.int64)
    out = draw.out((0.005, 0.01), "int16")
    run_tfl(tfl.fully_connected, x, Stored(w), Stored(b), out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("adj_x", "adj_y"), [(False, False), (True, False), (False, True)])
def test_batch_matmul_int8(adj_x: bool, adj_y: bool, kernels: Kernels) -> None:
    draw = Draw(10)
    x = draw.value(3, *((24, 16) if adj_x else (16, 24)))
    y = draw.value(3, *((20, 24) if adj_y else (24, 20)), zero_point=0)
    run_tfl(
        tfl.batch_matmul, x, y, adj_x=adj_x, adj_y=adj_y, out=draw.out((0.2, 1.0)), kernels=kernels
    ).assert_equal()


def test_batch_matmul_float_broadcasts() -> None:
    draw = Draw(11)
    run_tfl(tfl.batch_matmul, draw.real(2, 1, 5, 6), draw.real(3, 6, 4)).assert_close()


TRANSPOSED = [
    ("VALID", 2, 3, (1, 11, 13, 6)),
    ("SAME", 2, 3, (1, 10, 12, 6)),
    ("SAME", 2, 4, (1, 10, 12, 6)),
    ("VALID", 1, 2, (1, 6, 7, 6)),
    ("SAME", 2, 3, (1, 9, 11, 6)),
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize(("padding", "stride", "kernel", "shape"), TRANSPOSED)
def test_transpose_conv_int8(
    padding: str,
    stride: int,
    kernel: int,
    shape: tuple[int, ...],
    axis: int | None,
    kernels: Kernels,
) -> None:
    draw = Draw(12)
    x, w = draw.value(1, 5, 6, 8), draw.weights(6, kernel, kernel, 8, axis=axis, channels=6)
    b = draw.bias(x, w, 6, torch.int32)
    run_tfl(
        tfl.transpose_conv,
        x,
        Stored(w),
        Stored(b),
        output_shape=shape,
        stride_h=stride,
        stride_w=stride,
        padding=padding,
        out=draw.out((0.2, 1.0)),
        kernels=kernels,
    ).assert_equal()


@pytest.mark.parametrize(("padding", "stride", "kernel", "shape"), TRANSPOSED)
def test_transpose_conv_float(
    padding: str, stride: int, kernel: int, shape: tuple[int, ...]
) -> None:
    draw = Draw(13)
    x, w, b = draw.real(1, 5, 6, 8), draw.real(6, kernel, kernel, 8), draw.real(6)
    run_tfl(
        tfl.transpose_conv,
        x,
        Stored(w),
        Stored(b),
        output_shape=shape,
        stride_h=stride,
        stride_w=stride,
        padding=padding,
    ).assert_close()


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_volumes(padding: str) -> None:
    draw = Draw(15)
    strides: dict[str, Any] = {"stride_d": 2, "stride_h": 1, "stride_w": 2, "padding": padding}
    x, w, b = draw.real(1, 5, 6, 7, 3), draw.real(3, 2, 3, 3, 4), draw.real(4)
    run_tfl(tfl.conv_3d, x, Stored(w), Stored(b), **strides).assert_close()
    shape = (1, 10, 6, 14, 4) if padding == "SAME" else (1, 11, 7, 15, 4)
    back = draw.real(3, 2, 3, 4, 3)
    run_tfl(
        tfl.conv_3d_transpose, x, Stored(back), Stored(b), output_shape=shape, **strides
    ).assert_close()
