"""The table of operators: complete, consistent with the functions, and its limits."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.dialect.conditions import CONDITIONS
from fxquant.backends.tflite.dialect.refusals import REFUSALS
from fxquant.backends.tflite.dialect.row import Call, Row
from fxquant.backends.tflite.dialect.table import ROWS
from fxquant.errors import UnsupportedOp
from fxquant.ir.types import Quantization, TensorType
from tests.backends.tflite.dialect.one_operator import Draw, Stored, run_tfl

BORDERS = {"constant", "bind", "unbind", "use_kernels"}
FUNCTIONS = {
    name: getattr(tfl, name)
    for name in tfl.__all__
    if inspect.isfunction(getattr(tfl, name)) and name not in BORDERS
}
EVERY_ROW = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def test_every_function_has_a_row() -> None:
    assert set(FUNCTIONS) == set(ROWS)


@EVERY_ROW
def test_row_names_what_exists(row: Row) -> None:
    import tflite

    assert row.code >= 0
    assert set(row.versions) <= set(CONDITIONS)
    assert set(row.refusals) <= set(REFUSALS)
    if row.table is not None:
        fields = {option.field for option in row.options}
        assert all(hasattr(tflite, f"{row.table}Add{field}") for field in fields)


@EVERY_ROW
def test_row_fits_the_function(row: Row) -> None:
    """Every operand and option of the row is a parameter, and every parameter is in the row."""
    parameters = set(inspect.signature(FUNCTIONS[row.name]).parameters)
    operands = {operand.name for operand in row.operands}
    options = {option.name for option in row.options if option.derive is None}
    assert operands | options | {"out"} >= parameters
    assert operands | options <= parameters
    assert set(row.same_scale) <= operands


@EVERY_ROW
def test_row_with_a_free_result_takes_out(row: Row) -> None:
    """An operator with int8 kernels says its result's scale, or keeps that of an operand."""
    free = "q8" in row.dtypes and not row.same_scale
    silent = {"neg", "cast", "dequantize", "embedding_lookup", "arg_max", "arg_min", "gather_nd"}
    silent |= {"unidirectional_sequence_lstm"}  # its results have the grids of its states
    plain = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
    if free and row.name not in silent | plain:
        assert "out" in inspect.signature(FUNCTIONS[row.name]).parameters


def call_of(name: str, types: list[Any], results: list[TensorType], **options: Any) -> Call:
    return ROWS[name].call(FUNCTIONS[name], types, options, lambda each: each, results)


def int8(*shape: int, scale: float = 0.1, zero_point: int = 0) -> TensorType:
    return TensorType(shape, torch.int8, Quantization((scale,), (zero_point,)))


def float32(*shape: int) -> TensorType:
    return TensorType(shape, torch.float32)


VERSIONS = [
    (call_of("add", [float32(4), float32(4)], [float32(4)]), 1),
    (call_of("add", [int8(4), int8(4)], [int8(4)]), 2),
    (call_of("transpose", [float32(1, 2, 3, 4, 5), (0, 1, 2, 4, 3)], [float32(1)]), 4),
    (call_of("mul", [int8(4, scale=1.0), int8(4, scale=1.0)], [int8(4, scale=0.5)]), 3),
    (call_of("mul", [int8(4), int8(4)], [int8(4)]), 2),
    (call_of("conv_2d", [float32(1, 8, 8, 8), float32(8, 3, 3, 4), float32(8)], [float32(1)]), 6),
    (call_of("quantize", [float32(4)], [int8(4)]), 1),
    (call_of("dequantize", [int8(4)], [float32(4)]), 2),
]


@pytest.mark.parametrize(("call", "version"), VERSIONS)
def test_versions(call: Call, version: int) -> None:
    assert call.version() == version


REFUSED = [
    (call_of("conv_2d", [float32(1, 8, 8, 8), float32(8, 3, 3, 8), None], [float32(1)]), "bias"),
    (call_of("reshape", [int8(4), (2, 2)], [int8(2, 2, scale=0.2)]), "copies raw values"),
    (call_of("logistic", [int8(4)], [int8(4)]), "must have scale and zero point"),
    (call_of("softmax", [int8(2, 1000)], [int8(2, 1000, scale=1 / 256, zero_point=-128)]), "512"),
    (call_of("square", [int8(4)], [int8(4)]), "no kernel"),
    (call_of("neg", [int8(4, zero_point=3)], [int8(4, zero_point=3)]), "raw integers"),
    (
        call_of("add", [float32(4)] * 2, [float32(4)], fused_activation_function="TANH"),
        "RELU_N1_TO_1",
    ),
]


@pytest.mark.parametrize(("call", "reason"), REFUSED)
def test_refusals_state_the_reason(call: Call, reason: str) -> None:
    assert any(reason in text for text in call.refused()), call.refused()


def test_a_refused_form_is_not_written() -> None:
    draw = Draw(1)
    with pytest.raises(UnsupportedOp, match="bias"):
        run_tfl(tfl.conv_2d, draw.real(1, 4, 4, 2), Stored(draw.real(2, 3, 3, 2)), None)
    with pytest.raises(UnsupportedOp, match="scale and zero point"):
        run_tfl(tfl.softmax, draw.value(2, 9), out=QType("int8", 0.1, 0))
