"""The operators of ONNX as functions that compute in torch what a runtime computes.

    %q = quantize_linear(%x, 0.0235, -3) : i8[1,4]
    %y = conv(%x, @w, @b) {strides=(1,1), pads=(0,0,0,0), dilations=(1,1)} : f32[1,8,6,6]

A value is a plain tensor: quantized ones are floats between the pairs of quantize_linear and
dequantize_linear that say how they are stored.
"""

from . import convolution, elementwise, matrices, movement, quantization, recurrent, reductions
from .operator import DEFAULTS, OPERATORS, Operator, operator, operator_of

__all__ = [
    "DEFAULTS",
    "OPERATORS",
    "Operator",
    "convolution",
    "elementwise",
    "matrices",
    "movement",
    "operator",
    "operator_of",
    "quantization",
    "recurrent",
    "reductions",
]
