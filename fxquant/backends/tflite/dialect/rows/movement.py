"""Rows of the operators that move, select or convert data."""

from __future__ import annotations

from collections.abc import Callable

from ..row import Call
from .short_form import ANY, NO_ACTIVATION, ORDERED, row

_WITHOUT_16 = "f32 f16 bf16 q8 qu8 q16 i8 u8 i16 i32 i64 bool"
_BLOCKS = "f32 q8 qu8 i8 u8 i32 i64"


def _count(name: str) -> Callable[[Call], int]:
    return lambda call: len(call.arguments[name])


def _results(call: Call) -> int:
    return len(call.results)


def _zero(call: Call) -> int:
    return 0


def _in_type(call: Call) -> str:
    return str(call.primary.dtype).removeprefix("torch.")


MOVEMENT = (
    row("reshape", "x shape:int32[1]", kinds=ANY, same_scale="x"),
    row(
        "transpose",
        "x perm:int32[1]",
        "TransposeOptions",
        kinds=ANY,
        versions={
            "i8": 2,
            "bool": 3,
            "rank 5": 4,
            "i16": 5,
            "rank 6": 6,
            "rank 7": 8,
            "bf16": 8,
            "f16": 9,
        },
        same_scale="x",
        refusals=("rank 8",),
    ),
    row("squeeze", "x", "SqueezeOptions", "squeeze_dims[]", kinds=ANY, same_scale="x"),
    row("expand_dims", "x axis:int32[0]", "ExpandDimsOptions", kinds=ANY, same_scale="x"),
    row(
        "concatenation",
        "*values",
        "ConcatenationOptions",
        "axis fused_activation_function:ActivationFunctionType",
        kinds="f32 f16 bf16 q8 qu8 q16 i8 u8 i16 i32 u32 i64 bool",
        versions={"i8": 2, "i16": 3, "f16": 6},
        derived=NO_ACTIVATION,
        same_scale="values",
        refusals=("rank 6",),
    ),
    row(
        "split",
        "axis:int32[0] x",
        "SplitOptions",
        "num_splits",
        kinds=ORDERED,
        versions={"i8": 2, "i32": 3, "i16": 4},
        same_scale="x",
        results=None,
        refusals=("rank 6",),
    ),
    row(
        "split_v",
        "x size_splits:int32[1] axis:int32[0]",
        "SplitVOptions",
        "num_splits",
        kinds=ORDERED,
        versions={"i8": 2},
        derived={"num_splits": _results},
        same_scale="x",
        results=None,
    ),
    row(
        "pack",
        "*values",
        "PackOptions",
        "values_count axis",
        kinds="f32 q8 qu8 q16 i8 u8 i16 i32 u32 i64",
        versions={"i8": 2, "i16": 3},
        derived={"values_count": _count("values")},
        same_scale="values",
    ),
    row(
        "unpack",
        "x",
        "UnpackOptions",
        "num axis",
        kinds="f32 f16 bf16 q8 qu8 q16 i8 u8 i16 i32 bool",
        versions={"i8": 2, "u8": 2, "bool": 3, "i16": 4, "f16": 5, "bf16": 5},
        derived={"num": _results},
        same_scale="x",
        results=None,
    ),
    row(
        "slice",
        "x begin:int32[1] size:int32[1]",
        "SliceOptions",
        kinds=ANY,
        versions={"i8": 2, "i16": 4, "rank 5": 5, "f16": 8},
        same_scale="x",
        refusals=("rank 8",),
    ),
    row(
        "strided_slice",
        "x begin:int32[1] end:int32[1] strides:int32[1]",
        "StridedSliceOptions",
        "begin_mask end_mask ellipsis_mask new_axis_mask shrink_axis_mask",
        kinds=ANY,
        versions={"i8": 2, "bool": 3, "rank 5": 4},
        derived={"ellipsis_mask": _zero, "new_axis_mask": _zero},
        same_scale="x",
        refusals=("rank 8",),
    ),
    row(
        "pad",
        "x paddings:int32[2]",
        "PadOptions",
        kinds=_WITHOUT_16,
        versions={"i8": 2, "i16": 3, "rank 5": 4, "bool": 5},
        same_scale="x",
        refusals=("rank 5",),
    ),
    row(
        "padv2",
        "x paddings:int32[2] constant_values",
        "PadV2Options",
        kinds=_WITHOUT_16,
        versions={"i8": 2, "i16": 3, "rank 5": 4, "bool": 5},
        same_scale="x constant_values",
        refusals=("rank 5",),
    ),
    row(
        "mirror_pad",
        "x paddings:int32[2]",
        "MirrorPadOptions",
        "mode:MirrorPadMode",
        kinds=ANY,
        versions={"i8": 2, "i16": 3},
        same_scale="x",
    ),
    row(
        "gather",
        "x indices",
        "GatherOptions",
        "axis batch_dims",
        kinds=_WITHOUT_16,
        versions={"i8": 2, "bool": 3, "i16": 4, "batch_dims": 5},
        same_scale="x",
    ),
    row(
        "gather_nd",
        "x indices",
        "GatherNdOptions",
        kinds=_WITHOUT_16,
        versions={"i16": 3, "bool": 5},
        same_scale="x",
    ),
    row(
        "scatter_nd",
        "indices updates shape:int32[1]",
        "ScatterNdOptions",
        kinds="f32 i8 u8 i32 i64 bool",
        primary="updates",
        refusals=("quantized",),
    ),
    row(
        "embedding_lookup",
        "ids params",
        kinds=ANY + " q4",
        versions={"per channel": 4, "int4": 4},
        primary="params",
    ),
    row(
        "one_hot",
        "indices depth:int32[0] on_value off_value",
        "OneHotOptions",
        "axis",
        kinds="f32 q8 qu8 i8 u8 i32 i64 bool",
        primary="on_value",
        same_scale="on_value off_value",
    ),
    row(
        "tile", "x multiples:int32[1]", "TileOptions", kinds=ANY, versions={"i8": 2}, same_scale="x"
    ),
    row(
        "broadcast_to",
        "x shape:int32[1]",
        "BroadcastToOptions",
        kinds=ANY,
        versions={"always": 2, "i8": 3, "i16": 3},
        same_scale="x",
        refusals=("rank 8",),
    ),
    row(
        "reverse_v2",
        "x axis:int32[1]",
        "ReverseV2Options",
        kinds=_WITHOUT_16,
        versions={"bool": 2, "i8": 3},
        same_scale="x",
        refusals=("scattered axes",),
    ),
    row(
        "space_to_depth",
        "x",
        "SpaceToDepthOptions",
        "block_size",
        kinds=_BLOCKS,
        versions={"i8": 2},
        same_scale="x",
    ),
    row(
        "depth_to_space",
        "x",
        "DepthToSpaceOptions",
        "block_size",
        kinds=_BLOCKS,
        same_scale="x",
    ),
    row(
        "space_to_batch_nd",
        "x block_shape:int32[1] paddings:int32[2]",
        "SpaceToBatchNDOptions",
        kinds=ANY,
        versions={"i8": 2, "rank not 4": 3, "i16": 4},
        same_scale="x",
    ),
    row(
        "batch_to_space_nd",
        "x block_shape:int32[1] crops:int32[2]",
        "BatchToSpaceNDOptions",
        kinds=ANY,
        versions={"i8": 2, "rank not 4": 3, "i16": 4},
        same_scale="x",
    ),
    row(
        "select_v2",
        "condition x y",
        "SelectV2Options",
        kinds=ANY,
        primary="x",
        same_scale="x y",
    ),
    row(
        "dynamic_update_slice",
        "x update start_indices",
        "DynamicUpdateSliceOptions",
        kinds=ANY,
        versions={"f16": 3, "i16": 4, "bf16": 6},
        same_scale="x update",
    ),
)

CASTS = (
    row(
        "cast",
        "x",
        "CastOptions",
        "in_data_type:TensorType out_data_type:TensorType",
        kinds="f32 f16 bf16 f64 i8 u8 i16 u16 i32 u32 i64 bool q8 qu8 q16",
        versions={
            "i8": 3,
            "result i8": 3,
            "f16 or f64": 5,
            "result f16 or f64": 5,
            "bf16": 7,
            "result bf16": 7,
        },
        derived={"in_data_type": _in_type},
    ),
    row(
        "quantize",
        "x",
        "QuantizeOptions",
        kinds="f32 q8 qu8 q16 q32",
        versions={"result i16": 2, "per channel": 3},
        refusals=("int16 to uint8",),
    ),
    row(
        "dequantize",
        "x",
        "DequantizeOptions",
        kinds="q4 q8 qu8 q16 f16",
        versions={"i8": 2, "i16": 3, "f16": 3, "per channel": 5, "int4": 6},
    ),
)
