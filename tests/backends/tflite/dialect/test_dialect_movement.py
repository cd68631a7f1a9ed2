"""Data movement, selection and conversion against LiteRT, on floats, int8 and plain integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.kernels.selection import Kernels
from tests.backends.tflite.dialect.one_operator import Draw, Stored, run_tfl

KERNELS = ("reference", "optimized", "xnnpack")
Case = tuple[Callable[..., Any], tuple[int, ...], tuple[Any, ...], dict[str, Any]]
CASES: list[Case] = [
    (tfl.reshape, (2, 3, 4), ((6, -1),), {}),
    (tfl.reshape, (2, 3, 4), ((-1,),), {}),
    (tfl.squeeze, (1, 3, 1, 4), (), {"squeeze_dims": (0, 2)}),
    (tfl.expand_dims, (3, 4), (1,), {}),
    (tfl.transpose, (2, 3, 4, 5), ((0, 3, 1, 2),), {}),
    (tfl.transpose, (2, 3, 2, 2, 3), ((4, 0, 3, 1, 2),), {}),
    (tfl.transpose, (2, 3, 2, 2, 3, 2), ((5, 4, 0, 3, 1, 2),), {}),
    (tfl.split, (4, 6, 3), (1,), {"num_splits": 3}),
    (tfl.split_v, (4, 6, 3), ((2, -1, 1), 1), {}),
    (tfl.unpack, (4, 3, 5), (), {"axis": 1}),
    (tfl.slice, (4, 6, 5), ((1, 0, 2), (2, -1, 3)), {}),
    (tfl.strided_slice, (4, 9, 5), ((0, 1, 0), (4, 8, 5), (1, 3, 2)), {}),
    (tfl.strided_slice, (4, 9, 5), ((3, 8, 0), (0, 1, 5), (-1, -3, 1)), {}),
    (
        tfl.strided_slice,
        (4, 9, 5),
        ((2, 0, 1), (3, 0, 0), (1, 2, 1)),
        {"shrink_axis_mask": 1, "begin_mask": 2, "end_mask": 6},
    ),
    (tfl.strided_slice, (4, 9, 5), ((0, -3, 0), (4, -1, 5), (1, 1, 1)), {}),
    (
        tfl.strided_slice,
        (4, 9, 5),
        ((0, 0, 0), (0, 0, 0), (1, -2, 1)),
        {"begin_mask": 7, "end_mask": 7},
    ),
    (tfl.pad, (2, 4, 5, 3), (((0, 0), (1, 2), (0, 3), (0, 1)),), {}),
    (tfl.mirror_pad, (4, 5), (((2, 1), (3, 0)),), {"mode": "REFLECT"}),
    (tfl.mirror_pad, (4, 5), (((2, 1), (3, 0)),), {"mode": "SYMMETRIC"}),
    (tfl.tile, (2, 3), ((2, 3),), {}),
    (tfl.broadcast_to, (3, 1, 4), ((2, 3, 5, 4),), {}),
    (tfl.reverse_v2, (3, 4, 5), ((1, 2),), {}),
    (tfl.space_to_depth, (2, 4, 6, 3), (), {"block_size": 2}),
    (tfl.depth_to_space, (2, 4, 6, 12), (), {"block_size": 2}),
    (tfl.space_to_batch_nd, (2, 5, 6, 3), ((2, 3), ((1, 0), (2, 1))), {}),
    (tfl.batch_to_space_nd, (12, 3, 2, 3), ((2, 3), ((1, 0), (1, 1))), {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_movement_float(case: Case) -> None:
    function, shape, operands, options = case
    run_tfl(function, Draw(1).real(*shape), *operands, **options).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_movement_int8(case: Case, kernels: Kernels) -> None:
    function, shape, operands, options = case
    run_tfl(function, Draw(2).value(*shape), *operands, kernels=kernels, **options).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", [tfl.concatenation, tfl.pack])
def test_joining(function: Callable[..., Any], kernels: Kernels) -> None:
    draw = Draw(3)
    run_tfl(
        function, [draw.real(2, 3, 4) for _ in range(3)], axis=1, kernels=kernels
    ).assert_equal()
    alike = [draw.value(2, 3, 4, scale=0.1, zero_point=7) for _ in range(3)]
    run_tfl(function, alike, axis=2, kernels=kernels).assert_equal()


def test_padv2() -> None:
    draw = Draw(4)
    paddings = ((0, 0), (1, 2), (0, 3))
    run_tfl(tfl.padv2, draw.real(2, 4, 5), paddings, Stored(torch.tensor([-3.5]))).assert_equal()
    fill = draw.value(1, scale=0.1, zero_point=7)
    x = draw.value(2, 4, 5, scale=0.1, zero_point=7)
    run_tfl(tfl.padv2, x, paddings, Stored(fill)).assert_equal()


INDICES = torch.tensor([[2, 0], [1, 1]], dtype=torch.int32)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather(axis: int) -> None:
    draw = Draw(5)
    run_tfl(tfl.gather, draw.real(3, 4, 5), INDICES, axis=axis).assert_equal()
    run_tfl(tfl.gather, draw.value(3, 4, 5), Stored(INDICES), axis=axis).assert_equal()


@pytest.mark.parametrize("axis", [1, 2])
def test_gather_in_batches(axis: int) -> None:
    x = Draw(6).real(2, 4, 5, 3)
    run_tfl(tfl.gather, x, INDICES, axis=axis, batch_dims=1).assert_equal()


def test_gather_and_scatter_of_coordinates() -> None:
    draw = Draw(7)
    run_tfl(tfl.gather_nd, draw.real(3, 4, 5), INDICES).assert_equal()
    run_tfl(tfl.gather_nd, draw.value(3, 4, 5), INDICES).assert_equal()
    run_tfl(tfl.scatter_nd, INDICES, draw.real(2, 5), (3, 4, 5)).assert_equal()


def test_embedding_lookup() -> None:
    draw = Draw(8)
    ids = torch.tensor([3, 0, 3, 7], dtype=torch.int32)
    run_tfl(tfl.embedding_lookup, ids, Stored(draw.real(9, 6))).assert_equal()
    for axis in (None, 0):
        table = Stored(draw.weights(9, 6, axis=axis, channels=9))
        run_tfl(tfl.embedding_lookup, ids, table).assert_equal()


def test_one_hot() -> None:
    ids = torch.tensor([3, 0, -1, 7], dtype=torch.int32)
    on, off = Stored(torch.tensor(2.0)), Stored(torch.tensor(-1.0))
    run_tfl(tfl.one_hot, ids, 5, on, off).assert_equal()
    run_tfl(tfl.one_hot, ids, 5, on, off, axis=0).assert_equal()


def test_select() -> None:
    draw = Draw(9)
    condition = draw.real(3, 1) > 0
    run_tfl(tfl.select_v2, condition, draw.real(3, 4), draw.real(4)).assert_equal()
    x, y = (draw.value(3, 4, scale=0.1, zero_point=7) for _ in range(2))
    run_tfl(tfl.select_v2, condition, x, y).assert_equal()


def test_dynamic_update_slice() -> None:
    draw = Draw(10)
    start = torch.tensor([1, 9], dtype=torch.int32)
    run_tfl(tfl.dynamic_update_slice, draw.real(4, 5), draw.real(2, 2), start).assert_equal()


@pytest.mark.parametrize("dtype", ["FLOAT32", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL"])
def test_cast(dtype: str) -> None:
    reals = torch.tensor([0.0, -0.9, 1.5, -2.5, 300.0, -300.0, 1e10, -1e10, float("nan")])
    for x in (reals, torch.arange(-9, 9, dtype=torch.int32), torch.tensor([True, False])):
        run_tfl(tfl.cast, x, out_data_type=dtype).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("scale", [0.1, 0.0371, 0.5])
def test_quantize(scale: float, kernels: Kernels) -> None:
    ties = torch.arange(-260, 260) * (scale / 2)
    x = torch.cat([ties, Draw(11).real(203, spread=10.0)])
    run_tfl(tfl.quantize, x, out=QType("int8", scale, -7), kernels=kernels).assert_equal()


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
@pytest.mark.parametrize("kernels", ["reference", "optimized"])
def test_quantize_to_other_types(dtype: str, kernels: Kernels) -> None:
    x, out = Draw(12).real(203, spread=10.0), QType(dtype, 0.0371, 0)
    run_tfl(tfl.quantize, x, out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("seed", range(4))
def test_requantize(seed: int, kernels: Kernels) -> None:
    draw = Draw(seed)
    x, out = draw.value(500), draw.out((0.01, 0.2))
    run_tfl(tfl.quantize, x, out=out, kernels=kernels).assert_equal()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16])
def test_dequantize(dtype: torch.dtype, kernels: Kernels) -> None:
    run_tfl(tfl.dequantize, Draw(13).value(501, dtype=dtype), kernels=kernels).assert_equal()


def test_dequantize_channels() -> None:
    weights = Stored(Draw(14).weights(6, 4, axis=0, channels=6))
    run_tfl(tfl.dequantize, weights).assert_equal()
