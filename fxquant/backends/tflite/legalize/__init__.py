"""Core operators to TFLite operators: one short rule each, one file a family."""

from . import (
    activations,
    attention,
    comparisons,
    convolution,
    elementwise,
    functions,
    indexing,
    linear,
    normalization,
    pooling,
    recurrent,
    recurrent_int8,
    reductions,
    resize,
    shapes,
    transposed,
    volumes,
)
from . import looked_up as looked_up  # what it extends must be registered before
from . import prims as prims  # and its twins
from .legalize_tflite import LegalizeTflite
from .registry import RULES, Rule, legalize
from .rewriter import NoIntegerForm, Rewriter, Unsupported
from .values import Constant, Value

__all__ = [
    "RULES",
    "Constant",
    "LegalizeTflite",
    "NoIntegerForm",
    "Rewriter",
    "Rule",
    "Unsupported",
    "Value",
    "activations",
    "attention",
    "comparisons",
    "convolution",
    "elementwise",
    "functions",
    "indexing",
    "legalize",
    "linear",
    "normalization",
    "pooling",
    "recurrent",
    "recurrent_int8",
    "reductions",
    "resize",
    "shapes",
    "transposed",
    "volumes",
]
