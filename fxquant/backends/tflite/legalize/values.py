"""What rules compute with: values of the new graph, and constants that are not in it yet."""

from __future__ import annotations

from fxquant.backends.lowering.constants import Constant, Value, quantization_tensors

__all__ = ["Constant", "Value", "quantization_tensors"]
