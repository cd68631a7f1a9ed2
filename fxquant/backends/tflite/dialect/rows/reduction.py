"""Rows of pooling, reductions, searches and resizing."""

from __future__ import annotations

from .short_form import ACTIVATION, ORDERED, row

_POOL = f"padding:Padding stride_w stride_h filter_width filter_height {ACTIVATION}"
_UP_TO_INT16 = {"i8": 2, "i16": 3}

POOLING = (
    row(
        "average_pool_2d",
        "x",
        "Pool2DOptions",
        _POOL,
        kinds="f32 q8 qu8 q16",
        versions=_UP_TO_INT16,
        same_scale="x",
        refusals=("activation",),
    ),
    row(
        "max_pool_2d",
        "x",
        "Pool2DOptions",
        _POOL,
        kinds="f32 q8 qu8 q16 i8 u8 i16",
        versions=_UP_TO_INT16,
        same_scale="x",
        refusals=("activation",),
    ),
    row("l2_pool_2d", "x", "Pool2DOptions", _POOL, kinds="f32"),
)

_REDUCER = ("x axis:int32[1]", "ReducerOptions", "keep_dims")

REDUCTIONS = (
    row("mean", *_REDUCER, kinds="f32 q8 qu8 q16", versions=_UP_TO_INT16, refusals=("rank 6",)),
    row("sum", *_REDUCER, kinds="f32 i32 i64", versions={"i8": 2}),
    row(
        "reduce_max",
        *_REDUCER,
        kinds=ORDERED,
        versions=_UP_TO_INT16,
        same_scale="x",
        refusals=("rank 6",),
    ),
    row("reduce_min", *_REDUCER, kinds=ORDERED, versions=_UP_TO_INT16, same_scale="x"),
    row(
        "reduce_prod",
        *_REDUCER,
        kinds="f32 i8 u8 i16 i32 i64",
        versions={"i8": 2, "i16": 2},
    ),
    row("reduce_any", *_REDUCER, kinds="bool"),
    row("reduce_all", *_REDUCER, kinds="bool"),
    row(
        "arg_max",
        "x axis:int32[0]",
        "ArgMaxOptions",
        "output_type:TensorType",
        kinds="f32 q8 qu8 i8 u8 i32 bool",
        versions={"i8": 2, "bool": 3},
    ),
    row(
        "arg_min",
        "x axis:int32[0]",
        "ArgMinOptions",
        "output_type:TensorType",
        kinds="f32 q8 qu8 i8 u8 i32 bool",
        versions={"i8": 2, "bool": 3},
    ),
    row(
        "topk_v2",
        "x k:int32[0]",
        "TopKV2Options",
        kinds=ORDERED,
        versions={"i8": 2, "i16": 3},
        same_scale="x",
        results=2,
    ),
    row("cumsum", "x axis:int32[0]", "CumsumOptions", "exclusive reverse", kinds="f32 i32 i64"),
)

_RESIZE = "align_corners half_pixel_centers"

RESIZING = (
    row(
        "resize_bilinear",
        "x size:int32[1]",
        "ResizeBilinearOptions",
        _RESIZE,
        kinds="f32 q8 qu8 q16",
        versions={"i8": 2, "half pixel": 3, "i16": 4},
        same_scale="x",
    ),
    row(
        "resize_nearest_neighbor",
        "x size:int32[1]",
        "ResizeNearestNeighborOptions",
        _RESIZE,
        kinds="f32 f16 bf16 q8 qu8 q16 i8 u8 i16 u16 i32 u32 bool",
        versions={"i8": 2, "corners": 3, "i16": 4},
        same_scale="x",
    ),
)
