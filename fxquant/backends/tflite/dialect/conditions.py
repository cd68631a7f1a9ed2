"""The conditions that a row's version rule may name, as one table.

versions={"i8": 2, "rank 5": 4}    int8 needs version 2, five dimensions version 4
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from fxquant.ir.types import INT4, TensorType, dtype_name

if TYPE_CHECKING:
    from .row import Call


def kind_of(value: TensorType) -> str:
    """The dtype in the words of the tables: `q8`, `qu8`, `q16` where it is quantized.

    >>> kind_of(TensorType((1,), torch.float32))
    'f32'
    """
    name = dtype_name(value.dtype)
    if value.quantization is None:
        return name
    return {"i4": "q4", "i8": "q8", "u8": "qu8", "i16": "q16", "i32": "q32", "i64": "q64"}.get(
        name, name
    )


def _primary(*dtypes: torch.dtype) -> Callable[[Call], bool]:
    return lambda call: call.primary.dtype in dtypes


def _result(*dtypes: torch.dtype) -> Callable[[Call], bool]:
    return lambda call: call.results[0].dtype in dtypes


def _rank(least: int) -> Callable[[Call], bool]:
    return lambda call: max(len(call.primary.shape), len(call.results[0].shape)) >= least


WEIGHTS = ("filter", "input_weights")


def _hybrid(call: Call) -> bool:
    weights = next((call.type(name) for name in WEIGHTS if name in call.arguments), None)
    return (
        call.primary.dtype.is_floating_point
        and weights is not None
        and not weights.dtype.is_floating_point
    )


def _per_channel(call: Call) -> bool:
    types = [call.type_of(value) for _, value in call.values()]
    return any(kind.quantization and kind.quantization.axis is not None for kind in types)


def _int4_weights(*kinds: str) -> Callable[[Call], bool]:
    """int4 weights beside activations of some kind; of any where none is named."""

    def holds(call: Call) -> bool:
        weights = call.type("filter")
        alike = not kinds or kind_of(call.primary) in kinds
        return weights is not None and weights.dtype == INT4 and alike

    return holds


def _grouped(call: Call) -> bool:
    weights = call.type("filter")
    return weights is not None and weights.shape[-1] != call.primary.shape[-1]


def _broadcast(call: Call) -> bool:
    return len({call.type_of(value).shape for _, value in call.values()}) > 1


def _large_product(call: Call) -> bool:
    """MUL: the product of the input scales is at least the output's."""
    types = [*(call.type_of(value) for _, value in call.values()), call.results[0]]
    if any(kind.quantization is None for kind in types):
        return False
    first, second, result = (kind.quantization.scale[0] for kind in types if kind.quantization)
    return first * second >= result


CONDITIONS: dict[str, Callable[[Call], bool]] = {
    "always": lambda call: True,
    "i8": _primary(torch.int8),
    "u8": _primary(torch.uint8),
    "i16": _primary(torch.int16),
    "q16": lambda call: kind_of(call.primary) == "q16",
    "plain i16": lambda call: kind_of(call.primary) == "i16",
    "i32": _primary(torch.int32),
    "i64": _primary(torch.int64),
    "f16": _primary(torch.float16),
    "f16 or f64": _primary(torch.float16, torch.float64),
    "bf16": _primary(torch.bfloat16),
    "bool": _primary(torch.bool),
    "f32": _primary(torch.float32),
    "result i8": _result(torch.int8),
    "result i16": _result(torch.int16),
    "result f16 or f64": _result(torch.float16, torch.float64),
    "result bf16": _result(torch.bfloat16),
    "rank 5": _rank(5),
    "rank 6": _rank(6),
    "rank 7": _rank(7),
    "rank not 4": lambda call: len(call.primary.shape) != 4,
    "broadcast rank 5": lambda call: _broadcast(call) and _rank(5)(call),
    "hybrid": _hybrid,
    "per channel": _per_channel,
    "asymmetric hybrid": lambda call: (
        _hybrid(call) and bool(call.arguments["asymmetric_quantize_inputs"])
    ),
    "int4": _primary(INT4),
    "int4 weights": _int4_weights(),
    "int16 and int4": _int4_weights("q16"),
    "hybrid per channel": lambda call: _hybrid(call) and _per_channel(call),
    "grouped": _grouped,
    "large product": _large_product,
    "dilated": lambda call: (
        call.arguments["dilation_h_factor"] > 1 or call.arguments["dilation_w_factor"] > 1
    ),
    "bias": lambda call: call.arguments["bias"] is not None,
    "no bias": lambda call: call.arguments["bias"] is None,
    "activation": lambda call: call.arguments["fused_activation_function"] != "NONE",
    "keep_num_dims": lambda call: bool(call.arguments["keep_num_dims"]),
    "corners": lambda call: bool(
        call.arguments["align_corners"] or call.arguments["half_pixel_centers"]
    ),
    "half pixel": lambda call: bool(call.arguments["half_pixel_centers"]),
    "batch_dims": lambda call: call.arguments["batch_dims"] != 0,
}
