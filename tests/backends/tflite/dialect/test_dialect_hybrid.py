"""Float activations times integer weights: the dialect against each set of LiteRT's kernels.

The integers are the same; the float sums behind them differ in the last bits.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.kernels.selection import Kernels
from fxquant.errors import UnsupportedOp
from tests.backends.tflite.dialect.one_operator import Draw, Stored, run_tfl

KERNELS: tuple[Kernels, ...] = ("reference", "optimized", "xnnpack")
TOLERANCE = 2e-6
AXES = (None, 0)

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
every = pytest.mark.parametrize("kernels", KERNELS)
per_tensor_or_channel = pytest.mark.parametrize("axis", AXES)


@every
@per_tensor_or_channel
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_2d(kernels: Kernels, axis: int | None, kernel: int, stride: int) -> None:
    draw = Draw(kernel + 10 * stride)
    x = draw.real(3, 6, 7, 8) + 0.3
    weights = draw.weights(5, kernel, kernel, 8, axis=axis, channels=5)
    run_tfl(
        tfl.conv_2d,
        x,
        Stored(weights),
        Stored(draw.real(5)),
        kernels=kernels,
        stride_h=stride,
        stride_w=stride,
        fused_activation_function="RELU6",
    ).assert_close(TOLERANCE)


@every
@pytest.mark.parametrize("kernel", [1, 3])
def test_grouped_conv_2d(kernels: Kernels, kernel: int) -> None:
    draw = Draw(3)
    weights = draw.weights(6, kernel, kernel, 4, axis=0, channels=6)
    x = draw.real(2, 5, 5, 8) - 0.2
    run_tfl(tfl.conv_2d, x, Stored(weights), Stored(draw.real(6)), kernels=kernels).assert_close(
        TOLERANCE
    )


def test_groups_need_a_scale_per_channel() -> None:
    draw = Draw(4)
    weights = Stored(draw.weights(6, 3, 3, 4, axis=None, channels=6))
    with pytest.raises(UnsupportedOp, match="groups need weights with one scale per channel"):
        run_tfl(tfl.conv_2d, draw.real(2, 5, 5, 8), weights, Stored(draw.real(6)))


@every
def test_depthwise_conv_2d(kernels: Kernels) -> None:
    draw = Draw(5)
    weights = draw.weights(1, 3, 3, 8, axis=3, channels=8)
    x = draw.real(2, 6, 6, 8) + 0.5
    run_tfl(
        tfl.depthwise_conv_2d, x, Stored(weights), Stored(draw.real(8)), kernels=kernels
    ).assert_close(TOLERANCE)


@every
@per_tensor_or_channel
def test_transpose_conv(kernels: Kernels, axis: int | None) -> None:
    draw = Draw(6)
    weights = draw.weights(5, 2, 2, 8, axis=axis, channels=5)
    run_tfl(
        tfl.transpose_conv,
        draw.real(2, 4, 4, 8) + 0.1,
        Stored(weights),
        Stored(draw.real(5)),
        kernels=kernels,
        output_shape=(2, 8, 8, 5),
        stride_h=2,
        stride_w=2,
        padding="VALID",
    ).assert_close(TOLERANCE)


@every
@per_tensor_or_channel
@pytest.mark.parametrize("asymmetric", [False, True])
def test_fully_connected(kernels: Kernels, axis: int | None, asymmetric: bool) -> None:
    draw = Draw(7)
    x = draw.real(7, 32) * torch.logspace(-3, 2, 7).reshape(7, 1) + 0.1
    run_tfl(
        tfl.fully_connected,
        x,
        Stored(draw.weights(9, 32, axis=axis, channels=9)),
        Stored(draw.real(9)),
        kernels=kernels,
        asymmetric_quantize_inputs=asymmetric,
    ).assert_close(TOLERANCE)


@every
@pytest.mark.parametrize("length", [16, 31, 32, 44, 65, 128])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_fully_connected_of_int4(kernels: Kernels, length: int, asymmetric: bool) -> None:
    draw = Draw(length)
    run_tfl(
        tfl.fully_connected,
        draw.real(3, length) + 0.5,
        Stored(draw.int4_weights(9, length, axis=0, channels=9)),
        Stored(draw.real(9)),
        kernels=kernels,
        asymmetric_quantize_inputs=asymmetric,
    ).assert_close(TOLERANCE)


@every
@per_tensor_or_channel
@pytest.mark.parametrize("kernel", [1, 3])
def test_conv_2d_of_int4(kernels: Kernels, axis: int | None, kernel: int) -> None:
    draw = Draw(9 + kernel)
    weights = draw.int4_weights(5, kernel, kernel, 7, axis=axis, channels=5)
    x = draw.real(3, 6, 6, 7) + 0.3
    run_tfl(tfl.conv_2d, x, Stored(weights), Stored(draw.real(5)), kernels=kernels).assert_close(
        TOLERANCE
    )


@every
@per_tensor_or_channel
def test_int8_activations_and_int4_weights(kernels: Kernels, axis: int | None) -> None:
    draw = Draw(11)
    x, rows = draw.value(2, 6, 6, 8), draw.value(7, 33)
    images = draw.int4_weights(5, 3, 3, 8, axis=axis, channels=5)
    dense = draw.int4_weights(5, 33, axis=axis, channels=5)
    bias = Stored(draw.bias(x, images, 5, torch.int32))
    run_tfl(tfl.conv_2d, x, Stored(images), bias, kernels=kernels, out=draw.out()).assert_equal()
    bias = Stored(draw.bias(rows, dense, 5, torch.int32))
    run_tfl(
        tfl.fully_connected, rows, Stored(dense), bias, kernels=kernels, out=draw.out()
    ).assert_equal()


@pytest.mark.parametrize("kernels", ["optimized", "xnnpack"])  # the reference ones have no int4
def test_depthwise_conv_2d_of_int8_and_int4(kernels: Kernels) -> None:
    draw = Draw(12)
    x = draw.value(2, 6, 6, 8)
    weights = draw.int4_weights(1, 3, 3, 8, axis=3, channels=8)
    bias = Stored(draw.bias(x, weights, 8, torch.int32))
    run_tfl(
        tfl.depthwise_conv_2d, x, Stored(weights), bias, kernels=kernels, out=draw.out()
    ).assert_equal()


@pytest.mark.parametrize(
    ("function", "shape", "options", "reason"),
    [
        (tfl.transpose_conv, (5, 2, 2, 8), {"output_shape": (1, 8, 8, 5)}, "rejects int4"),
        (tfl.depthwise_conv_2d, (1, 3, 3, 8), {}, "int4 weights need int8 activations"),
    ],
)
def test_int4_where_no_kernel_has_it(
    function: Any, shape: tuple[int, ...], options: dict[str, Any], reason: str
) -> None:
    draw = Draw(13)
    axis, channels = (0, 5) if len(options) else (3, 8)
    weights = draw.int4_weights(*shape, axis=axis, channels=channels)
    with pytest.raises(UnsupportedOp, match=reason):
        run_tfl(
            function, draw.real(1, 4, 4, 8), Stored(weights), Stored(draw.real(channels)), **options
        )


@every
@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("axis", AXES)
def test_embedding_lookup(kernels: Kernels, storage: str, axis: int | None) -> None:
    draw = Draw(14)
    make = draw.weights if storage == "int8" else draw.int4_weights
    ids = torch.tensor([0, 10, 3, 3], dtype=torch.int32)
    table = make(11, 6, axis=axis, channels=11)
    run_tfl(tfl.embedding_lookup, ids, Stored(table), kernels=kernels).assert_close(1e-7)


@every
@pytest.mark.parametrize("axis", [None, 0, 3])
def test_dequantize_of_int4(kernels: Kernels, axis: int | None) -> None:
    draw = Draw(15)
    sizes = (5, 3, 3, 7)
    channels = 1 if axis is None else sizes[axis]
    weights = draw.int4_weights(*sizes, axis=axis, channels=channels)
    run_tfl(tfl.dequantize, Stored(weights), kernels=kernels).assert_close(1e-7)
