"""Tracing: how a PyTorch model becomes a graph in the torch dialect."""

from fxquant.tracing.codegen import SignatureCodeGen
from fxquant.tracing.signature import Signature, TensorSpec
from fxquant.tracing.trace import trace

__all__ = ["Signature", "SignatureCodeGen", "TensorSpec", "trace"]
