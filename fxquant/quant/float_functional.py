"""Operations of two tensors as a module, which has a place for the quantizer of its result.

    self.add = FloatFunctional()
    y = self.add.add(x, z)        what `x + z` is, and `self.add.quantizer` sees it

One module for one place in the model: two places have two ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FloatFunctional(nn.Module):
    """Sums, products and joins with a place for their result's `FakeQuantize`.

    Attributes:
        quantizer: called with every result; an identity until it is replaced.
    """

    OPERATIONS = (
        "add",
        "add_relu",
        "add_scalar",
        "cat",
        "div",
        "div_scalar",
        "matmul",
        "mul",
        "mul_scalar",
        "stack",
        "sub",
        "sub_scalar",
    )

    def __init__(self) -> None:
        super().__init__()
        self.quantizer: nn.Module = nn.Identity()

    def forward(self, operation: str, *args: Any, **kwargs: Any) -> Tensor:
        """The operation by name; in a graph a module is called, not its method.

        Raises:
            ValueError: there is no such operation.
        """
        if operation not in self.OPERATIONS:
            raise ValueError(f"FloatFunctional has no {operation!r}, only {self.OPERATIONS}")
        result: Tensor = getattr(self, operation)(*args, **kwargs)
        return result

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        """first + second"""
        return self._quantized(torch.add(first, second))

    def add_relu(self, first: Tensor, second: Tensor) -> Tensor:
        """relu(first + second), whose inner value no target stores."""
        return self._quantized(torch.relu(torch.add(first, second)))

    def add_scalar(self, value: Tensor, number: float) -> Tensor:
        """value + number"""
        return self._quantized(torch.add(value, number))

    def sub(self, first: Tensor, second: Tensor) -> Tensor:
        """first - second"""
        return self._quantized(torch.sub(first, second))

    def sub_scalar(self, value: Tensor, number: float) -> Tensor:
        """value - number"""
        return self._quantized(torch.sub(value, number))

    def mul(self, first: Tensor, second: Tensor) -> Tensor:
        """first * second"""
        return self._quantized(torch.mul(first, second))

    def mul_scalar(self, value: Tensor, number: float) -> Tensor:
        """value * number"""
        return self._quantized(torch.mul(value, number))

    def div(self, first: Tensor, second: Tensor) -> Tensor:
        """first / second"""
        return self._quantized(torch.div(first, second))

    def div_scalar(self, value: Tensor, number: float) -> Tensor:
        """value / number"""
        return self._quantized(torch.div(value, number))

    def matmul(self, first: Tensor, second: Tensor) -> Tensor:
        """first @ second"""
        return self._quantized(torch.matmul(first, second))

    def cat(self, values: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The values one behind the other along `dim`."""
        return self._quantized(torch.cat(list(values), dim))

    def stack(self, values: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The values along a new dimension `dim`."""
        return self._quantized(torch.stack(list(values), dim))

    def _quantized(self, value: Tensor) -> Tensor:
        if isinstance(self.quantizer, nn.Identity):
            return value
        result: Tensor = self.quantizer(value)
        return result

    def ir_label(self) -> str:
        """How it prints in a graph."""
        return "float_functional"
