"""Core operators to ONNX operators: one short rule each, one file a family."""

from . import (
    activations,
    convolution,
    elementwise,
    indexing,
    matrices,
    normalization,
    pooling,
    recurrent,
    reductions,
    resize,
    shapes,
)
from .legalize_onnx import LegalizeOnnx
from .registry import RULES, Rule, legalize
from .rewriter import Rewriter, Unsupported

__all__ = [
    "RULES",
    "LegalizeOnnx",
    "Rewriter",
    "Rule",
    "Unsupported",
    "activations",
    "convolution",
    "elementwise",
    "indexing",
    "legalize",
    "matrices",
    "normalization",
    "pooling",
    "recurrent",
    "reductions",
    "resize",
    "shapes",
]
