"""The shipped fusions: operators that models write out by hand."""

from fxquant.passes.fusion.recognizers import activations, attention, clamps, normalization

__all__ = ["activations", "attention", "clamps", "normalization"]
