"""Forms that LiteRT computes wrongly, crashes on or rejects are refused, each with its reason."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.table import ROWS
from fxquant.backends.tflite.serialize import serialize
from fxquant.backends.tflite.traps import faults
from fxquant.errors import UnsupportedOp
from fxquant.ir.types import Quantization, TensorType
from tests.backends.tflite.hand_graph import HandGraph

Q = Quantization((0.1,), (3,))
OTHER = Quantization((0.2,), (3,))
FLAT = Quantization((0.01,), (0,))
CHANNELS = Quantization((0.01,) * 8, (0,) * 8, 0)
SHIFTED = Quantization((0.01,), (5,))


def i8(*shape: int, q: Quantization | None = Q) -> TensorType:
    return TensorType(shape, torch.int8, q)


def i16(*shape: int, q: Quantization | None = FLAT) -> TensorType:
    return TensorType(shape, torch.int16, q)


def i32(*shape: int, q: Quantization | None = FLAT) -> TensorType:
    return TensorType(shape, torch.int32, q)


def f32(*shape: int) -> TensorType:
    return TensorType(shape, torch.float32)


X, W, B, Y = i8(1, 8, 8, 4), i8(8, 3, 3, 4, q=FLAT), i32(8), i8(1, 8, 8, 8)
DEEP = i8(1, 3, 3, 8, q=FLAT)


class Trap(NamedTuple):
    """One use of an operator, by types, and words of the reason why it is refused."""

    name: str
    args: tuple[Any, ...]
    result: TensorType
    reason: str
    options: dict[str, Any] = {}


TRAPS = {
    "16x8 convolution, int32 bias": Trap(
        "conv_2d", (i16(1, 8, 8, 4), W, B), i16(1, 8, 8, 8), "must be int64"
    ),
    "16x8 linear, int32 bias": Trap(
        "fully_connected", (i16(1, 4), i8(8, 4, q=FLAT), B), i16(1, 8), "must be int64"
    ),
    "hybrid depthwise, one scale": Trap(
        "depthwise_conv_2d", (f32(1, 8, 8, 8), DEEP, f32(8)), f32(1, 8, 8, 8), "scale per channel"
    ),
    "float16 weights": Trap(
        "conv_2d",
        (f32(1, 8, 8, 4), TensorType((8, 3, 3, 4), torch.float16), f32(8)),
        f32(1, 8, 8, 8),
        "need a DEQUANTIZE",
    ),
    "uint8 weights": Trap(
        "fully_connected",
        (f32(1, 4), TensorType((8, 4), torch.uint8, FLAT), f32(8)),
        f32(1, 8),
        "uint8 weights",
    ),
    "shifted weights, depthwise": Trap(
        "depthwise_conv_2d",
        (i8(1, 8, 8, 8), i8(1, 3, 3, 8, q=SHIFTED), B),
        Y,
        "zero point must be 0",
    ),
    "shifted weights, convolution": Trap(
        "conv_2d", (X, i8(8, 3, 3, 4, q=SHIFTED), B), Y, "zero point must be 0"
    ),
    "matrix product, scales per channel": Trap(
        "batch_matmul", (i8(2, 8, 4), i8(2, 4, 8, q=CHANNELS)), i8(2, 8, 8), "per channel"
    ),
    "hybrid matrix product, batches": Trap(
        "batch_matmul", (f32(2, 8, 4), i8(2, 4, 8, q=FLAT)), f32(2, 8, 8), "one batch"
    ),
    "linear, int16 result": Trap(
        "fully_connected", (i8(1, 4), i8(8, 4, q=FLAT), B), i16(1, 8), "input's dtype"
    ),
    "int16 prelu": Trap("prelu", (i16(1, 4), i16(4)), i16(1, 4), "alpha must be int8"),
    "fused tanh": Trap(
        "conv_2d", (X, W, B), Y, "as activation", {"fused_activation_function": "TANH"}
    ),
    "raw negation": Trap("neg", (i8(1, 4),), i8(1, 4), "zero point 0"),
    "raw division": Trap("floor_div", (i8(1, 4), i8(1, 4)), i8(1, 4), "ignores scale"),
    "int16 not_equal": Trap(
        "not_equal",
        (i16(4, q=None), i16(4, q=None)),
        TensorType((4,), torch.bool),
        "no kernel",
    ),
    "features": Trap("fully_connected", (f32(1, 17), f32(4, 16), None), f32(1, 4), "do not match"),
    "scale product": Trap(
        "conv_2d", (X, W, B), i8(1, 8, 8, 8, q=Quantization((1e-6,), (0,))), "256"
    ),
    "scale of 0": Trap(
        "conv_2d", (X, i8(8, 3, 3, 4, q=Quantization((0.0,), (0,))), B), Y, "above 0"
    ),
    "mean of 7 dimensions": Trap(
        "mean", (f32(1, 1, 1, 1, 1, 1, 2), (1,)), f32(1, 1, 1, 1, 1, 2), "6"
    ),
    "softmax of 7 dimensions": Trap(
        "softmax", (f32(1, 1, 1, 1, 1, 1, 2),), f32(1, 1, 1, 1, 1, 1, 2), "6 dimensions"
    ),
    "depthwise without bias": Trap(
        "depthwise_conv_2d", (i8(1, 8, 8, 8), DEEP, None), Y, "needs a bias"
    ),
    "convolution without bias": Trap("conv_2d", (X, W, None), Y, "needs a bias"),
    "unquantized int8 sum": Trap("add", (i8(4, q=None), i8(4, q=None)), i8(4, q=None), "no kernel"),
    "unquantized int16 difference": Trap(
        "sub", (i16(4, q=None), i16(4, q=None)), i16(4, q=None), "no kernel"
    ),
    "unquantized int16 logarithm": Trap("log", (i16(4, q=None),), i16(4, q=None), "no kernel"),
    "logistic of another scale": Trap("logistic", (i8(1, 4),), i8(1, 4), "must have scale"),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS.keys())
def test_is_refused(trap: Trap) -> None:
    function = getattr(tfl, trap.name)
    call = ROWS[trap.name].call(
        function, trap.args, trap.options, lambda value: value, (trap.result,)
    )
    assert trap.reason in " / ".join(call.refused())


MOVED = {
    "reshape": ((i8(1, 4), (4,)), i8(4, q=OTHER)),
    "transpose": ((i8(1, 4), (1, 0)), i8(4, 1, q=OTHER)),
    "slice": ((i8(1, 4), (0, 0), (1, 2)), i8(1, 2, q=OTHER)),
    "pad": ((i8(1, 4), ((0, 0), (1, 1))), i8(1, 6, q=OTHER)),
    "tile": ((i8(1, 4), (1, 2)), i8(1, 8, q=OTHER)),
    "maximum": ((i8(1, 4), i8(1, 4)), i8(1, 4, q=OTHER)),
    "reduce_max": ((i8(1, 4), (1,)), i8(1, q=OTHER)),
    "max_pool_2d": ((X,), i8(1, 8, 8, 4, q=OTHER)),
    "average_pool_2d": ((X,), i8(1, 8, 8, 4, q=OTHER)),
    "concatenation": (([i8(1, 4), i8(1, 4, q=OTHER)],), i8(1, 8)),
    "resize_bilinear": ((X, (16, 16)), i8(1, 16, 16, 4, q=OTHER)),
    "select_v2": ((TensorType((4,), torch.bool), i8(4), i8(4, q=OTHER)), i8(4)),
}


@pytest.mark.parametrize("name", MOVED)
def test_operators_that_copy_raw_values_need_one_scale(name: str) -> None:
    args, result = MOVED[name]
    window = {"filter_height": 2, "filter_width": 2} if "pool" in name else {}
    call = ROWS[name].call(getattr(tfl, name), args, window, lambda value: value, (result,))
    assert "copies raw values" in " / ".join(call.refused())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (i8(1, 4, q=Quantization((0.1,), (300,))), "zero point 300 is outside of int8"),
        (i8(1, 4, q=Quantization((0.0,), (0,))), "not above 0"),
        (i8(1, 4, q=Quantization((float("nan"),), (0,))), "not above 0"),
        (i8(1, 4, q=Quantization((0.1, 0.1), (0, 0), 1)), "2 scales for 4 channels along axis 1"),
        (i16(1, 4, q=Quantization((0.1,), (5,))), "wide integers must be 0"),
        (f32(*[1] * 9), "9 dimensions"),
    ],
)
def test_tensors_that_no_file_may_have(kind: TensorType, reason: str) -> None:
    assert reason in " / ".join(faults(kind))


def test_a_half_dequantize_is_no_output() -> None:
    graph = HandGraph()
    x = graph.input("x", torch.zeros(4, dtype=torch.float16))
    with pytest.raises(UnsupportedOp, match="DEQUANTIZE of 16-bit floats that is an output"):
        serialize(graph.finish(graph.call(tfl.dequantize, x)))
