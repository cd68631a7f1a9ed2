"""Dimensions whose size is chosen when the graph is called, such as the batch.

A stage is made at several sizes; what differs between the results shows where a size has become a
number, and is written so that it holds for all of them.
"""

from fxquant.tracing.dynamic.alignment import Aligned, Misaligned, Varying, one_slice, varying_in
from fxquant.tracing.dynamic.dimensions import Dimension, read_dynamic_shapes, trials
from fxquant.tracing.dynamic.formula import Formula, formula_of
from fxquant.tracing.dynamic.resize import propagate, resize_inputs

__all__ = [
    "Aligned",
    "Dimension",
    "Formula",
    "Misaligned",
    "Varying",
    "formula_of",
    "one_slice",
    "propagate",
    "read_dynamic_shapes",
    "resize_inputs",
    "trials",
    "varying_in",
]
