"""What runtimes that read QuantizeLinear and DequantizeLinear pairs demand of each core operator.

ONNX Runtime turns a pair around an operator into an integer kernel where it has one, and computes
the operator in float between the pairs where it has none, so that the rows say where integers
pay. Weights are symmetric and per channel, biases int32 in steps of input times weight scale;
what only moves values keeps their grid. An operator without a row stays in float.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from fxquant.ir.aten import named_arguments
from fxquant.quant.constraints import (
    INFINITY,
    ConstraintTable,
    Role,
    Row,
    asymmetric,
    carried,
    int32,
    plain,
    refused,
    row,
    same_as,
    shared,
    symmetric,
)

CLAMPS = ((0.0, INFINITY), (0.0, 6.0))
"""Activations that runtimes fold into the grid of what follows."""

DTYPES = ("int8", "uint8")


def _no_factor(node: Node) -> str | None:
    factor = named_arguments(node).get("alpha", 1)
    return None if factor == 1 else "Add and Sub have no factor"


def _layer(axis: int) -> Row:
    roles = {"input": asymmetric, "weight": symmetric(axis), "bias": int32("input*weight")}
    return Row(roles, dtypes=DTYPES, fuses=True)


def _moves() -> Row:
    return Row({"self": asymmetric}, output=carried("self"), dtypes=DTYPES)


def _computes(output: Role = asymmetric) -> Row:
    return Row({"self": asymmetric, "input": asymmetric}, output=output, dtypes=DTYPES)


def _pair() -> Row:
    operands = {"self": asymmetric, "other": asymmetric}
    return Row(operands, fuses=True, dtypes=DTYPES, checks=(_no_factor,))


LAYERS: Mapping[str, Row] = {
    "conv1d": _layer(0),
    "conv2d": _layer(0),
    "conv3d": _layer(0),
    "conv_transpose1d": _layer(1),
    "conv_transpose2d": _layer(1),
    "conv_transpose3d": _layer(1),
    "linear": _layer(0),
    "matmul": _pair(),
    "bmm": row(self=asymmetric, mat2=asymmetric, dtypes=DTYPES),
}

VALUES = """
relu relu6 hardtanh clamp clamp_min clamp_max leaky_relu hardswish hardsigmoid silu gelu elu
sigmoid tanh softmax avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d mean
"""
"""Operators that compute new values of their first argument."""

COMPUTING: Mapping[str, Row] = {
    "add": _pair(),
    "sub": _pair(),
    "mul": _pair(),
    **{name: _computes() for name in VALUES.split()},
    "prelu": row(self=asymmetric, weight=symmetric(), dtypes=DTYPES),
    "upsample_bilinear2d": _computes(same_as("self")),
    "upsample_linear1d": _computes(same_as("self")),
    "argmax": _computes(plain),
    "argmin": _computes(plain),
    "layer_norm": refused("the statistics of LayerNormalization need float"),
    "group_norm": refused("the statistics of InstanceNormalization need float"),
    "instance_norm": refused("the statistics of InstanceNormalization need float"),
    "div": refused("no runtime has an int8 kernel for Div"),
}

MOVING = """
amax amin channel_shuffle chunk constant_pad_nd detach expand expand_dim flatten flip getitem
index_select max_pool1d max_pool2d max_pool3d narrow_dim permute pixel_shuffle pixel_unshuffle
reflection_pad1d reflection_pad2d repeat replication_pad1d replication_pad2d reshape roll select
slice split split_with_sizes squeeze transpose unbind unflatten unsqueeze upsample_nearest1d
upsample_nearest2d upsample_nearest3d view _upsample_nearest_exact1d _upsample_nearest_exact2d
Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout
"""
"""Operators that only move, repeat or drop values of their first argument."""

MOVERS: Mapping[str, Row] = {
    "cat": row(tensors=shared, output=shared, dtypes=DTYPES),
    "stack": row(tensors=shared, output=shared, dtypes=DTYPES),
    **{name: _moves() for name in MOVING.split()},
}

TABLE = ConstraintTable(
    "onnx",
    {**LAYERS, **COMPUTING, **MOVERS},
    clamps=CLAMPS,
    free=frozenset(
        ["add", "sub", "mul", "upsample_bilinear2d", "upsample_linear1d", *VALUES.split()]
    ),
)
