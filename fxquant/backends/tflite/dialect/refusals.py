"""Forms that LiteRT computes wrongly, crashes on or rejects, each with its condition and reason.

Rows name them; `Call.refused` lists the reasons that apply to one use of an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fxquant.ir.types import INT4, TensorType

from .conditions import kind_of

if TYPE_CHECKING:
    from .row import Call


@dataclass(frozen=True)
class Refusal:
    """One form that must not be written: when it is met, and why not."""

    when: Callable[[Call], bool]
    reason: str


def _types(call: Call) -> list[TensorType]:
    return [*(call.type_of(value) for _, value in call.values()), *call.results]


def _weights(call: Call) -> TensorType | None:
    return call.type("filter")


def _no_bias(call: Call) -> bool:
    return call.arguments["bias"] is None


def _bias_is_read_as_int64(call: Call) -> bool:
    bias = call.type("bias")
    return call.primary.dtype == torch.int16 and bias is not None and bias.dtype != torch.int64


def _shifted_weights(call: Call) -> bool:
    weights = _weights(call)
    if weights is None or weights.quantization is None or weights.dtype == torch.uint8:
        return False
    return any(weights.quantization.zero_point)


def _zero_scale(call: Call) -> bool:
    return any(
        kind.quantization is not None and min(kind.quantization.scale) <= 0 for kind in _types(call)
    )


def _product_too_large(call: Call) -> bool:
    weights = _weights(call)
    kinds = (call.primary.quantization, weights and weights.quantization)
    result = call.results[0].quantization
    if result is None or kinds[0] is None or not isinstance(weights, TensorType):
        return False
    largest = max(weights.quantization.scale) if weights.quantization else 0.0
    return kinds[0].scale[0] * largest / result.scale[0] >= 256


def _hybrid_per_tensor(call: Call) -> bool:
    weights = _weights(call)
    quantization = weights.quantization if weights else None
    return (
        quantization is not None
        and quantization.axis is None
        and call.primary.dtype.is_floating_point
    )


def _hybrid_groups(call: Call) -> bool:
    weights = _weights(call)
    return (
        _hybrid_per_tensor(call)
        and weights is not None
        and (weights.shape[-1] != call.primary.shape[-1])
    )


def _int4(call: Call) -> bool:
    weights = _weights(call)
    return weights is not None and weights.dtype == INT4


def _uint8_weights(call: Call) -> bool:
    weights = _weights(call)
    return weights is not None and weights.dtype == torch.uint8 and kind_of(call.primary) != "qu8"


def _half_weights(call: Call) -> bool:
    weights = _weights(call)
    return weights is not None and weights.dtype in (torch.float16, torch.bfloat16)


def _other_result(call: Call) -> bool:
    return kind_of(call.results[0]) != kind_of(call.primary)


def _strange_activation(call: Call) -> bool:
    known = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
    return call.arguments["fused_activation_function"] not in known


def _unquantized_integer(*dtypes: torch.dtype) -> Callable[[Call], bool]:
    return lambda call: any(
        kind.dtype in dtypes and kind.quantization is None and kind.dtype != torch.bool
        for kind in _types(call)
    )


def _per_channel_operand(call: Call) -> bool:
    return any(kind.quantization and kind.quantization.axis is not None for kind in _types(call))


def _hybrid_batches(call: Call) -> bool:
    rhs = call.type("y")
    return (
        rhs is not None
        and call.primary.dtype.is_floating_point
        and rhs.quantization is not None
        and len(rhs.shape) > 2
    )


def _int16_alpha(call: Call) -> bool:
    alpha = call.type("alpha")
    return call.primary.dtype == torch.int16 and alpha is not None and alpha.dtype != torch.int8


def _int16_to_uint8(call: Call) -> bool:
    return call.primary.dtype == torch.int16 and call.results[0].dtype == torch.uint8


def _another_routine(call: Call) -> bool:
    coarse = {"logistic": (2.0**-12,), "tanh": (2.0**-12, 2.0**-11)}[call.row.name]
    quantization = call.primary.quantization
    if quantization is None or call.primary.dtype != torch.int16:
        return False
    return quantization.scale[0] in coarse


def _long_softmax(call: Call) -> bool:
    return kind_of(call.primary) == "q8" and call.primary.shape[-1] >= 512


def _hard_swish_multiplier(call: Call) -> bool:
    before, after = call.primary.quantization, call.results[0].quantization
    return bool(before and after and before.scale[0] / 128 / after.scale[0] > 1)


def _raw_negation(call: Call) -> bool:
    before, after = call.primary.quantization, call.results[0].quantization
    return before is not None and (before.zero_point[0] != 0 or before != after)


def _quantized(call: Call) -> bool:
    return any(kind.quantization is not None for kind in _types(call))


def _rank_over(most: int) -> Callable[[Call], bool]:
    return lambda call: max(len(kind.shape) for kind in _types(call)) > most


def _features_do_not_match(call: Call) -> bool:
    weights = _weights(call)
    size = 1
    for extent in call.primary.shape:
        size *= extent
    return weights is not None and size % weights.shape[-1] != 0


def _scattered_axes(call: Call) -> bool:
    rank = len(call.primary.shape)
    axes = sorted({axis % rank for axis in call.arguments["axis"]})
    return bool(axes) and axes[-1] - axes[0] >= len(axes)


def _unequal_shapes(call: Call) -> bool:
    return len({call.type_of(value).shape for _, value in call.values()}) > 1


REFUSALS: dict[str, Refusal] = {
    "no bias": Refusal(_no_bias, "the kernel needs a bias: give one of zeros"),
    "int32 bias": Refusal(_bias_is_read_as_int64, "with int16 activations the bias must be int64"),
    "shifted weights": Refusal(_shifted_weights, "the weights' zero point must be 0"),
    "zero scale": Refusal(_zero_scale, "every scale must be above 0"),
    "product": Refusal(_product_too_large, "s_in * s_w / s_out must be below 256"),
    "hybrid per tensor": Refusal(
        _hybrid_per_tensor, "float activations need weights with one scale per channel"
    ),
    "hybrid groups": Refusal(
        _hybrid_groups, "float activations and groups need weights with one scale per channel"
    ),
    "int4": Refusal(_int4, "the kernel rejects int4 weights"),
    "int4 beside others": Refusal(
        lambda call: _int4(call) and kind_of(call.primary) != "q8",
        "int4 weights need int8 activations",
    ),
    "uint8 weights": Refusal(_uint8_weights, "uint8 weights need uint8 activations"),
    "half weights": Refusal(_half_weights, "16-bit float weights need a DEQUANTIZE before"),
    "other result": Refusal(_other_result, "the result must have the input's dtype"),
    "activation": Refusal(
        _strange_activation, "the kernel knows only RELU, RELU6 and RELU_N1_TO_1 as activation"
    ),
    "unquantized int8": Refusal(
        _unquantized_integer(torch.int8, torch.uint8), "8-bit integers need scale and zero point"
    ),
    "unquantized int16": Refusal(
        _unquantized_integer(torch.int16), "int16 needs scale and zero point"
    ),
    "per channel": Refusal(_per_channel_operand, "the kernel ignores scales per channel"),
    "hybrid batches": Refusal(_hybrid_batches, "a float times int8 product must have one batch"),
    "int16 alpha": Refusal(_int16_alpha, "with int16 activations alpha must be int8"),
    "int16 to uint8": Refusal(_int16_to_uint8, "int16 becomes uint8 only by way of int8"),
    "table scale": Refusal(
        _another_routine, "16-bit inputs with a scale of 2^-12 (TANH: 2^-11) are computed coarsely"
    ),
    "long softmax": Refusal(
        _long_softmax, "rows of 512 or more can abort the reference kernel: keep it in float"
    ),
    "hard swish": Refusal(_hard_swish_multiplier, "s_in / 128 / s_out must be at most 1"),
    "raw negation": Refusal(_raw_negation, "NEG negates raw integers: zero point 0, equal scales"),
    "quantized": Refusal(_quantized, "the kernel ignores scale and zero point"),
    "rank 5": Refusal(_rank_over(5), "the kernel has at most 5 dimensions"),
    "rank 6": Refusal(_rank_over(6), "XNNPACK refuses the model above 6 dimensions"),
    "rank 8": Refusal(_rank_over(8), "the kernel has at most 8 dimensions"),
    "features": Refusal(_features_do_not_match, "input size and weights do not match"),
    "scattered axes": Refusal(_scattered_axes, "the axes must lie side by side"),
    "unequal shapes": Refusal(_unequal_shapes, "the kernel does not broadcast"),
}
