"""Rows of the convolutions and matrix products."""

from __future__ import annotations

from .short_form import ACTIVATION, row

_STRIDES = "stride_w stride_h"
_WEIGHTS = "zero scale", "shifted weights", "product", "other result", "uint8 weights"

CONVOLUTIONS = (
    row(
        "conv_2d",
        "x filter:weight bias:weight",
        "Conv2DOptions",
        f"padding:Padding {_STRIDES} dilation_w_factor dilation_h_factor {ACTIVATION}",
        kinds="f32 q8 qu8 q16",
        versions={
            "hybrid": 2,
            "i8": 3,
            "i16": 4,
            "hybrid per channel": 5,
            "grouped": 6,
            "int4 weights": 7,
        },
        refusals=(
            *_WEIGHTS,
            "no bias",
            "int32 bias",
            "half weights",
            "activation",
            "hybrid groups",
        ),
    ),
    row(
        "depthwise_conv_2d",
        "x filter:weight bias:weight",
        "DepthwiseConv2DOptions",
        f"padding:Padding {_STRIDES} depth_multiplier dilation_w_factor dilation_h_factor "
        + ACTIVATION,
        kinds="f32 q8 qu8 q16",
        versions={
            "dilated": 2,
            "i8": 3,
            "hybrid": 4,
            "i16": 5,
            "hybrid per channel": 6,
            "int4 weights": 7,
        },
        refusals=(
            *_WEIGHTS,
            "no bias",
            "int32 bias",
            "half weights",
            "activation",
            "hybrid per tensor",
            "int4 beside others",
        ),
    ),
    row(
        "transpose_conv",
        "output_shape:int32[1] filter:weight x bias:weight",
        "TransposeConvOptions",
        f"padding:Padding {_STRIDES} {ACTIVATION}",
        kinds="f32 q8 qu8 q16",
        versions={"i8": 2, "i16": 2, "bias": 3, "activation": 4},
        refusals=(*_WEIGHTS, "int32 bias", "activation", "int4"),
        primary="x",
    ),
    row(
        "fully_connected",
        "x filter:weight bias:weight",
        "FullyConnectedOptions",
        f"{ACTIVATION} keep_num_dims asymmetric_quantize_inputs",
        kinds="f32 q8 qu8 q16",
        versions={
            "hybrid": 3,
            "i8": 4,
            "keep_num_dims": 5,
            "no bias": 6,
            "i16": 7,
            "asymmetric hybrid": 9,
            "int4 weights": 10,
            "hybrid per channel": 12,
            "int16 and int4": 13,
        },
        refusals=(
            "zero scale",
            "product",
            "other result",
            "uint8 weights",
            "int32 bias",
            "activation",
            "features",
        ),
    ),
    row(
        "batch_matmul",
        "x y",
        "BatchMatMulOptions",
        "adj_x adj_y asymmetric_quantize_inputs",
        kinds="f32 q8 q16",
        versions={"i8": 2, "i16": 3},
        refusals=("zero scale", "per channel", "hybrid batches", "rank 5"),
    ),
    row(
        "conv_3d",
        "x filter:weight bias:weight",
        "Conv3DOptions",
        "padding:Padding stride_d stride_w stride_h dilation_d_factor dilation_w_factor "
        f"dilation_h_factor {ACTIVATION}",
        kinds="f32",
        refusals=("activation",),
    ),
    row(
        "conv_3d_transpose",
        "output_shape:int32[1] filter:weight x bias:weight",
        "Conv3DOptions",
        "padding:Padding stride_d stride_w stride_h dilation_d_factor dilation_w_factor "
        f"dilation_h_factor {ACTIVATION}",
        kinds="f32",
        refusals=("activation",),
        primary="x",
    ),
)
