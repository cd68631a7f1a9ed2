"""Rows of the two-operand arithmetic, comparisons and logic."""

from __future__ import annotations

from ..row import Call
from .short_form import ACTIVATION, row

_BROADCAST = "unquantized int8", "zero scale", "rank 8"


def _false(call: Call) -> bool:
    return False


_FREE_INT16 = {"pot_scale_int16": _false}

ARITHMETIC = (
    row(
        "add",
        "x y",
        "AddOptions",
        f"{ACTIVATION} pot_scale_int16",
        kinds="f32 f16 q8 qu8 q16 i16 i32 i64",
        versions={"i8": 2, "q16": 3, "i64": 4, "plain i16": 5, "f16": 6},
        derived=_FREE_INT16,
        refusals=(*_BROADCAST, "activation"),
    ),
    row(
        "sub",
        "x y",
        "SubOptions",
        f"{ACTIVATION} pot_scale_int16",
        kinds="f32 q8 qu8 q16 i32 i64",
        versions={"i8": 2, "broadcast rank 5": 3, "i64": 4, "q16": 5},
        derived=_FREE_INT16,
        refusals=(*_BROADCAST, "activation", "unquantized int16"),
    ),
    row(
        "mul",
        "x y",
        "MulOptions",
        ACTIVATION,
        kinds="f32 f16 q8 qu8 q16 i16 i32 u32 i64",
        versions={"i8": 2, "large product": 3, "q16": 4, "i64": 5, "plain i16": 7, "f16": 8},
        refusals=(*_BROADCAST, "activation"),
    ),
    row(
        "div",
        "x y",
        "DivOptions",
        ACTIVATION,
        kinds="f32 i32",
        versions={"broadcast rank 5": 2},
        refusals=(*_BROADCAST, "activation"),
    ),
    row(
        "maximum",
        "x y",
        "MaximumMinimumOptions",
        kinds="f32 f16 bf16 q8 qu8 q16 i8 u8 i16 i32 i64",
        versions={"i8": 2, "broadcast rank 5": 3, "q16": 4},
        same_scale="x y",
    ),
    row(
        "minimum",
        "x y",
        "MaximumMinimumOptions",
        kinds="f32 f16 bf16 q8 qu8 q16 i8 u8 i16 i32 i64",
        versions={"i8": 2, "broadcast rank 5": 3, "q16": 4},
        same_scale="x y",
    ),
    row(
        "squared_difference",
        "x y",
        "SquaredDifferenceOptions",
        kinds="f32 q8 i32",
        versions={"i8": 2},
        refusals=_BROADCAST,
    ),
    row("pow", "x y", "PowOptions", kinds="f32 i32"),
    row(
        "floor_div",
        "x y",
        "FloorDivOptions",
        kinds="f32 i8 i16 i32",
        versions={"f32": 2, "i8": 3, "i16": 3},
        refusals=("quantized",),
    ),
    row(
        "floor_mod",
        "x y",
        "FloorModOptions",
        kinds="f32 i8 i16 i32 i64",
        versions={"i8": 2, "i16": 2},
        refusals=("quantized",),
    ),
    row("atan2", "x y", "ATan2Options", kinds="f32 f16 bf16 f64", refusals=("unequal shapes",)),
)

_COMPARED = "f32 f16 q8 qu8 q16 i16 i32 i64"
_PLAIN_INT8 = ("unquantized int8",)

COMPARISONS = (
    row(
        "equal",
        "x y",
        "EqualOptions",
        kinds=_COMPARED + " bool",
        versions={"i8": 2, "plain i16": 5},
        refusals=_PLAIN_INT8,
    ),
    row(
        "not_equal",
        "x y",
        "NotEqualOptions",
        kinds="f32 f16 q8 qu8 q16 i32 i64 bool",
        versions={"i8": 2},
        refusals=_PLAIN_INT8,
    ),
    row(
        "less",
        "x y",
        "LessOptions",
        kinds=_COMPARED + " bf16",
        versions={"i8": 2, "i16": 3},
        refusals=_PLAIN_INT8,
    ),
    row(
        "less_equal",
        "x y",
        "LessEqualOptions",
        kinds=_COMPARED,
        versions={"i8": 2},
        refusals=_PLAIN_INT8,
    ),
    row(
        "greater",
        "x y",
        "GreaterOptions",
        kinds=_COMPARED + " bf16",
        versions={"i8": 2},
        refusals=_PLAIN_INT8,
    ),
    row(
        "greater_equal",
        "x y",
        "GreaterEqualOptions",
        kinds=_COMPARED,
        versions={"i8": 2, "i16": 3},
        refusals=_PLAIN_INT8,
    ),
    row("logical_and", "x y", "LogicalAndOptions", kinds="bool"),
    row("logical_or", "x y", "LogicalOrOptions", kinds="bool"),
    row("logical_not", "x", "LogicalNotOptions", kinds="bool"),
)
