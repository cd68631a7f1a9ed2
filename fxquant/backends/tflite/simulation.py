"""The program run in torch with the arithmetic of one set of LiteRT's kernels."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule

from fxquant.backends.tflite.dialect import use_kernels
from fxquant.backends.tflite.interpreter import Kernels


class Simulation(nn.Module):
    """Called like the graph; computes what those kernels compute, bit for bit where they allow it.

    Args:
        graph_module: a graph in the tfl dialect.
        kernels: "reference" (BUILTIN_REF), "optimized" (no delegate) or "xnnpack" (the default
            of the runtime); the last two depend on the processor, see `kernels/`.
    """

    def __init__(self, graph_module: GraphModule, kernels: Kernels = "reference") -> None:
        super().__init__()
        self.graph_module = graph_module
        self.kernels = kernels

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with use_kernels(self.kernels):
            return self.graph_module(*args, **kwargs)

    def extra_repr(self) -> str:
        """The kernels that are followed."""
        return f"kernels={self.kernels}"
