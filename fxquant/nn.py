"""Modules for models written with quantization in mind, and for generated files.

    from fxquant import nn as fqnn

    self.quant, self.dequant = fqnn.QuantStub(), fqnn.DeQuantStub()
    self.add = fqnn.FloatFunctional()

A graph shows them as they are. In the core dialect sums are sums again, and stubs are gone: what
stands outside of them keeps the mark that it stays float.
"""

from __future__ import annotations

from fxquant.backends.source.loading import load_constants, load_model, load_weights
from fxquant.backends.source.weights import Buffer, Weights
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.float_functional import FloatFunctional
from fxquant.quant.qat.batch_norm import Line, TrainedBatchNorm, WeightScale
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from fxquant.quant.qat.learned import LearnedFakeQuantize
from fxquant.quant.qat.tied_grids import GateFakeQuantize, StateFakeQuantize
from fxquant.quant.spec import QuantSpec
from fxquant.quant.stubs import DeQuantStub, QuantStub

__all__ = [
    "Buffer",
    "DeQuantStub",
    "FakeQuantize",
    "FloatFunctional",
    "GateFakeQuantize",
    "LearnedFakeQuantize",
    "Line",
    "QuantSpec",
    "QuantStub",
    "StateFakeQuantize",
    "TrainedBatchNorm",
    "TrainedFakeQuantize",
    "WeightScale",
    "Weights",
    "load_constants",
    "load_model",
    "load_weights",
]
