"""Core operators to TFLite operators: one short rule each, one file a family."""

from . import (
    activations,
    attention,
    comparisons,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reductions,
    resize,
    shapes,
    transposed,
)
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
    "indexing",
    "legalize",
    "linear",
    "normalization",
    "pooling",
    "reductions",
    "resize",
    "shapes",
    "transposed",
]
