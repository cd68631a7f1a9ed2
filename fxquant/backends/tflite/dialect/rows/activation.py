"""Rows of the one-operand functions: activations, normalizations, elementary functions."""

from __future__ import annotations

from .short_form import ACTIVATION, NO_ACTIVATION, row

_LUT = {"i8": 2, "q16": 2}
_UP_TO_INT16 = {"i8": 2, "i16": 3}
_SIGMOID = {"q8": (1 / 256, -128), "qu8": (1 / 256, 0), "q16": (1 / 32768, 0)}
_SAFE = ("zero scale", "unquantized int8", "unquantized int16")

ACTIVATIONS = (
    row("relu", "x", kinds="f32 q8 qu8 q16", versions={"i8": 2, "u8": 2, "i16": 3}, refusals=_SAFE),
    row("relu6", "x", kinds="f32 q8 qu8 q16", versions=_UP_TO_INT16, refusals=_SAFE),
    row("relu_n1_to_1", "x", kinds="f32 q8 qu8", refusals=_SAFE),
    row("relu_0_to_1", "x", kinds="f32 q8 qu8", refusals=_SAFE),
    row(
        "leaky_relu",
        "x",
        "LeakyReluOptions",
        "alpha",
        kinds="f32 q8 qu8 q16",
        versions={"i16": 2},
        refusals=_SAFE,
    ),
    row("prelu", "x alpha", kinds="f32 q8 qu8 q16", refusals=("int16 alpha",)),
    row("elu", "x", kinds="f32 q8", reference=False),
    row(
        "gelu",
        "x",
        "GeluOptions",
        "approximate",
        kinds="f32 f16 q8 qu8 q16",
        versions={"i8": 2, "u8": 2, "q16": 2, "f16": 3},
    ),
    row("hard_swish", "x", "HardSwishOptions", kinds="f32 q8 qu8", refusals=("hard swish",)),
    row(
        "logistic",
        "x",
        kinds="f32 f16 bf16 q8 qu8 q16",
        versions=_UP_TO_INT16,
        fixed=_SIGMOID,
        refusals=("table scale",),
    ),
    row(
        "tanh",
        "x",
        kinds="f32 f16 bf16 q8 qu8 q16",
        versions=_UP_TO_INT16,
        fixed={"q16": (1 / 32768, 0)},
        refusals=("table scale",),
    ),
    row(
        "softmax",
        "x",
        "SoftmaxOptions",
        "beta",
        kinds="f32 f16 q8 qu8 q16",
        versions={"i8": 2, "i16": 3, "f16": 4},
        fixed=_SIGMOID,
        refusals=("long softmax", "rank 6"),
    ),
    row(
        "log_softmax",
        "x",
        "LogSoftmaxOptions",
        kinds="f32 q8 qu8",
        versions={"i8": 2},
        fixed={"q8": (1 / 16, 127), "qu8": (1 / 16, 255)},
    ),
    row(
        "l2_normalization",
        "x",
        "L2NormOptions",
        ACTIVATION,
        derived=NO_ACTIVATION,
        kinds="f32",
        versions={"i8": 2},
        fixed={"q8": (1 / 128, 0), "qu8": (1 / 128, 128)},
    ),
    row(
        "local_response_normalization",
        "x",
        "LocalResponseNormalizationOptions",
        "radius bias alpha beta",
        kinds="f32",
    ),
)

FUNCTIONS = (
    row("exp", "x", "ExpOptions", kinds="f32 q8 q16", versions=_LUT),
    row("log", "x", kinds="f32 q8 q16", versions=_LUT, refusals=_SAFE),
    row("sqrt", "x", kinds="f32 q8 q16", versions=_LUT, refusals=_SAFE),
    row("rsqrt", "x", kinds="f32 q8 q16", versions=_UP_TO_INT16, refusals=_SAFE),
    row("square", "x", "SquareOptions", kinds="f32"),
    row(
        "abs",
        "x",
        "AbsOptions",
        kinds="f32 q8 q16 i16 i32",
        versions={"i8": 2, "q16": 3, "plain i16": 4, "i32": 5},
    ),
    row(
        "neg",
        "x",
        "NegOptions",
        kinds="f32 f16 bf16 q8 q16 i8 i16 i32 i64",
        refusals=("raw negation",),
    ),
    row("sign", "x", "SignOptions", kinds="f32 i32 f64", versions={"i32": 2}),
    row("sin", "x", kinds="f32 f16", versions={"f16": 2}),
    row("cos", "x", "CosOptions", kinds="f32 f16", versions={"f16": 2}),
    row("floor", "x", kinds="f32 f16 bf16"),
    row("ceil", "x", kinds="f32", reference=False),
    row("round", "x", kinds="f32 f16 bf16", reference=False),
)
