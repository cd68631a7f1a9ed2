"""What TFLite's integer kernels demand of each core operator.

The rows follow what was measured of the kernels: operators that move data copy raw bytes, so input
and output must have one grid (`carried`); pooling and resizing average raw bytes (`same`);
concatenation wants one grid for all; logistic, softmax and tanh prescribe theirs; weights are
symmetric, and per channel where the kernel reads one scale per channel. An operator without a row
stays in float, and so does one without a kernel for the dtype that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch.fx import Node

from fxquant.backends.tflite.costs import COSTS
from fxquant.ir.aten import named_arguments
from fxquant.ir.edit import is_attribute
from fxquant.quant.constraints import (
    INFINITY,
    Check,
    Condition,
    ConstraintTable,
    Role,
    Row,
    WeightForms,
    asymmetric,
    carried,
    fixed,
    int32,
    plain,
    refused,
    row,
    same_as,
    shared,
    symmetric,
)
from fxquant.quant.tied_grids import CELL_STATE

from .weight_forms import (
    BATCHED,
    CONVOLVED,
    DENSE,
    DEPTHWISE,
    GROUPED,
    TABLES,
    TRANSPOSED,
    VOLUMES,
    is_constant_matrix,
    is_depthwise,
    is_grouped,
)

CLAMPS = ((0.0, INFINITY), (0.0, 6.0), (-1.0, 1.0), (0.0, 1.0))
"""Activations that an operator can end with: RELU, RELU6, RELU_N1_TO_1; [0, 1] by its grid."""

INT8 = ("int8",)
EIGHT_BITS = ("int8", "uint8")
SIGNED = ("int8", "int16")
ALL = ("int8", "uint8", "int16")
"""The activation dtypes that kernels take; weights are int8, for uint8 activations uint8."""

PROBABILITY = fixed(int8=(1 / 256, -128), uint8=(1 / 256, 0), int16=(1 / 32768, 0))
TANH = fixed(int8=(1 / 128, 0), uint8=(1 / 128, 128), int16=(1 / 32768, 0))
LOG_SOFTMAX = fixed(int8=(1 / 16, 127), uint8=(1 / 16, 255))


# Conditions are partial functions, not closures: prepared graphs pickle, and hold the table.


def _argument_is(name: str, *allowed: object) -> Condition:
    """Whether an argument has one of the given values."""
    return partial(_has, name, allowed)


def _has(name: str, allowed: tuple[object, ...], node: Node) -> bool:
    return named_arguments(node).get(name) in allowed


def _must_be(name: str, value: object, why: str) -> Check:
    """A check that an argument has a value."""
    return partial(_why_not, name, value, why)


def _why_not(name: str, value: object, why: str, node: Node) -> str | None:
    return None if named_arguments(node).get(name) == value else why


def _is_constant(name: str) -> Condition:
    """Whether an argument is a number or a stored tensor."""
    return partial(_holds_constant, name)


def _holds_constant(name: str, node: Node) -> bool:
    value = named_arguments(node).get(name)
    return not isinstance(value, Node) or is_attribute(value)


def _is_plain_attention(node: Node) -> bool:
    given = named_arguments(node)
    return not given["dropout_p"] and not given["enable_gqa"]


def _is_unmasked(node: Node) -> bool:
    given = named_arguments(node)
    masked = given["attn_mask"] is not None or given["is_causal"]
    return _is_plain_attention(node) and not masked


def _is_masked_by_constants(node: Node) -> bool:
    mask = named_arguments(node)["attn_mask"]
    return _is_plain_attention(node) and (mask is None or is_attribute(mask))


def _to_one_pixel(node: Node) -> bool:
    return all(size == 1 for size in named_arguments(node)["output_size"])


def _pads_with_zero(node: Node) -> bool:
    return named_arguments(node).get("value") in (None, 0, 0.0, False)


def _convolution(
    axis: int, *checks: Check, weights: WeightForms, when: Condition | None = None
) -> Row:
    roles = {"input": asymmetric, "weight": symmetric(axis), "bias": int32("input*weight")}
    return Row(roles, dtypes=ALL, fuses=True, checks=checks, weights=weights, when=when)


def _in_float(why: str, axis: int) -> Row:
    """A convolution without an integer kernel; its weights may be stored narrow."""
    return Row({"weight": symmetric(axis)}, reason=why, weights=VOLUMES)


def _moves(argument: str = "self") -> Row:
    return Row({argument: asymmetric}, output=carried(argument), dtypes=ALL)


def _computes(output: Role = asymmetric, dtypes: tuple[str, ...] = ALL) -> Row:
    return Row({"self": asymmetric, "input": asymmetric}, output=output, dtypes=dtypes)


def _product(other: str) -> tuple[Row, ...]:
    """A constant matrix makes a dense layer; BATCH_MATMUL has no uint8."""
    dense = {"self": asymmetric, other: symmetric(1)}
    roles = {"self": asymmetric, other: symmetric()}
    return (
        Row(dense, dtypes=ALL, when=is_constant_matrix(other), weights=DENSE),
        Row(roles, dtypes=ALL, when=_is_constant(other), weights=BATCHED),
        Row(roles, dtypes=SIGNED),
    )


NO_GROUPS = _must_be("groups", 1, "TRANSPOSE_CONV has no groups")
NO_ALPHA = _must_be("alpha", 1, "ADD and SUB have no factor")

CONVOLUTIONS: Mapping[str, Row | tuple[Row, ...]] = {
    "conv1d": (
        _convolution(0, weights=DEPTHWISE, when=is_depthwise),
        _convolution(0, weights=GROUPED, when=is_grouped),
        _convolution(0, weights=CONVOLVED),
    ),
    "conv2d": (
        _convolution(0, weights=DEPTHWISE, when=is_depthwise),
        _convolution(0, weights=GROUPED, when=is_grouped),
        _convolution(0, weights=CONVOLVED),
    ),
    "conv_transpose1d": _convolution(1, NO_GROUPS, weights=TRANSPOSED),
    "conv_transpose2d": _convolution(1, NO_GROUPS, weights=TRANSPOSED),
    "linear": _convolution(0, weights=DENSE),
    "conv3d": _in_float("CONV_3D computes in float only", 0),
    "conv_transpose3d": _in_float("CONV_3D_TRANSPOSE computes in float only", 1),
    "embedding": Row(
        {"weight": symmetric(0)}, weights=TABLES, reason=dict(TABLES.reasons)["static"]
    ),
}

# A second operand with zero point 0 keeps batched products in the delegate.
PRODUCTS: Mapping[str, tuple[Row, ...]] = {
    "matmul": _product("other"),
    "mm": _product("mat2"),
    "bmm": _product("mat2"),
}

ARITHMETIC: Mapping[str, Row | tuple[Row, ...]] = {
    "add": row(self=asymmetric, other=asymmetric, dtypes=ALL, fuses=True, checks=(NO_ALPHA,)),
    "sub": row(self=asymmetric, other=asymmetric, dtypes=ALL, fuses=True, checks=(NO_ALPHA,)),
    "mul": row(self=asymmetric, other=asymmetric, dtypes=ALL, fuses=True),
    "div": (
        row(self=asymmetric, dtypes=ALL, when=_is_constant("other")),
        Row(dtypes=ALL, asked_only=True, in_steps=ALL, when=_argument_is("rounding_mode", None)),
        refused("DIV fails where the quantized divisor is 0"),
    ),
    "neg": _computes(),
    "abs": _computes(dtypes=SIGNED),
    "maximum": row(self=shared, other=shared, output=shared, dtypes=ALL),
    "minimum": row(self=shared, other=shared, output=shared, dtypes=ALL),
    "pow": (
        row(self=asymmetric, dtypes=ALL, when=_argument_is("exponent", 2, 2.0)),
        Row({"self": asymmetric}, dtypes=ALL, when=_is_constant("exponent"), asked_only=True),
        refused("POW computes in float only"),
    ),
    "sum": row(self=asymmetric, dtypes=ALL),
}

ACTIVATIONS: Mapping[str, Row] = {
    "relu": _computes(),
    "relu6": _computes(),
    "hardtanh": _computes(),
    "clamp": _computes(),
    "clamp_min": _computes(),
    "clamp_max": _computes(),
    "leaky_relu": _computes(),
    "prelu": row(self=asymmetric, weight=symmetric(), dtypes=ALL),
    "hardswish": _computes(),
    "hardsigmoid": _computes(),
    "silu": _computes(),
    "glu": _computes(),
    "gelu": _computes(),
    "elu": _computes(),
    "exp": _computes(dtypes=SIGNED),
    "sigmoid": _computes(PROBABILITY),
    "softmax": _computes(PROBABILITY),
    "tanh": _computes(TANH),
    "log_softmax": _computes(LOG_SOFTMAX),
}

POOLS: Mapping[str, Row | tuple[Row, ...]] = {
    "max_pool1d": _moves(),
    "max_pool2d": _moves(),
    "avg_pool1d": _computes(same_as("self")),
    "avg_pool2d": _computes(same_as("self")),
    "adaptive_avg_pool1d": (
        row(self=asymmetric, dtypes=ALL, when=_to_one_pixel),
        row(self=asymmetric, output=same_as("self"), dtypes=ALL),
    ),
    "adaptive_avg_pool2d": (
        row(self=asymmetric, dtypes=ALL, when=_to_one_pixel),
        row(self=asymmetric, output=same_as("self"), dtypes=ALL),
    ),
    "mean": row(self=asymmetric, dtypes=ALL),
    "amax": _moves(),
    "amin": _moves(),
    "argmax": _computes(plain, EIGHT_BITS),
    "argmin": _computes(plain, EIGHT_BITS),
    "upsample_bilinear2d": row(
        self=asymmetric, input=asymmetric, output=same_as("self"), dtypes=ALL
    ),
    "upsample_nearest1d": _moves(),
    "upsample_nearest2d": _moves(),
    "_upsample_nearest_exact2d": _moves(),
}

LOOKED_UP = """
celu cos erf exp2 expm1 hardshrink log log10 log1p log2 log_sigmoid log_sigmoid_forward mish
reciprocal rsqrt selu sin softplus softshrink sqrt tan threshold
"""
"""Functions of one value, by a table or a kernel that is slower or coarser than float."""

IN_STEPS = "group_norm instance_norm layer_norm rms_norm"
"""Operators that integers compute in several steps."""

ASKED: Mapping[str, Row | tuple[Row, ...]] = {
    **{name: replace(_computes(), asked_only=True) for name in LOOKED_UP.split()},
    **{name: Row(dtypes=ALL, asked_only=True, in_steps=ALL) for name in IN_STEPS.split()},
    "scaled_dot_product_attention": (
        Row(dtypes=SIGNED, asked_only=True, in_steps=SIGNED, when=_is_unmasked),
        Row(dtypes=SIGNED, asked_only=True, in_steps=("int16",), when=_is_masked_by_constants),
    ),
}

MOVING = """
_unsafe_view alias as_strided channel_shuffle chunk clone contiguous detach expand expand_as
flatten flip getitem index_select movedim narrow native_channel_shuffle permute pixel_shuffle
pixel_unshuffle reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d
replication_pad2d reshape roll select slice split split_with_sizes squeeze swapaxes t tile
transpose unbind unflatten unsqueeze view Dropout Dropout1d Dropout2d Dropout3d AlphaDropout
FeatureAlphaDropout
"""
"""Operators that only move, repeat or drop values of their first argument."""

MOVERS: Mapping[str, Row | tuple[Row, ...]] = {
    "cat": row(tensors=shared, output=shared, dtypes=ALL),
    "stack": row(tensors=shared, output=shared, dtypes=ALL),
    "constant_pad_nd": (
        row(self=asymmetric, output=carried("self"), dtypes=ALL, when=_pads_with_zero),
        refused("quantized padding is with 0 only"),
    ),
    "pad": (
        row(self=asymmetric, output=carried("self"), dtypes=ALL, when=_pads_with_zero),
        refused("quantized padding is with 0 only"),
    ),
    **{name: _moves() for name in MOVING.split()},
}

FREE = """
abs add adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d elu exp gelu hardsigmoid
hardswish leaky_relu log_softmax maximum mean minimum mul neg sigmoid silu softmax sub tanh
upsample_bilinear2d
"""
"""Operators without weights; in float they take about the time of their int8 kernels or less."""

TABLE = ConstraintTable(
    "tflite",
    {**CONVOLUTIONS, **PRODUCTS, **ARITHMETIC, **ACTIVATIONS, **POOLS, **ASKED, **MOVERS},
    clamps=CLAMPS,
    free=frozenset(FREE.split()),
    costs=COSTS,
    largest_ratio=128,  # XNNPACK refuses a model from 256 on
    per_tensor=frozenset({"uint8"}),
    whole_layers={"lstm": CELL_STATE},
    dynamic_layers=frozenset({"lstm"}),
)
