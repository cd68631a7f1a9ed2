"""Markers of where a quantized region begins and ends; they compute nothing."""

from __future__ import annotations

from torch import Tensor, nn


class QuantStub(nn.Module):
    """A float value enters a quantized region here; its FakeQuantize follows."""

    def forward(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def ir_label(self) -> str:
        """How it prints in a graph."""
        return "quant"


class DeQuantStub(nn.Module):
    """A quantized value leaves to float here."""

    def forward(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def ir_label(self) -> str:
        """How it prints in a graph."""
        return "dequant"
