"""Operations of two tensors as a module, which has a place for the quantizer of its result.

    self.add = FloatFunctional()
    y = self.add.add(x, z)        what `x + z` is, and `self.add.quantizer` sees it

One module for one place in the model: two places have two ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def _add_relu(first: Tensor, second: Tensor) -> Tensor:
    return torch.relu(torch.add(first, second))


OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "add_relu": _add_relu,
    "add_scalar": torch.add,
    "cat": torch.cat,
    "div": torch.div,
    "div_scalar": torch.div,
    "matmul": torch.matmul,
    "mul": torch.mul,
    "mul_scalar": torch.mul,
    "stack": torch.stack,
    "sub": torch.sub,
    "sub_scalar": torch.sub,
}


class FloatFunctional(nn.Module):
    """Sums, products and joins with a place for their result's `FakeQuantize`.

    Attributes:
        quantizer: called with every result; an identity until it is replaced.
    """

    def __init__(self) -> None:
        super().__init__()
        self.quantizer: nn.Module = nn.Identity()

    def forward(self, operation: str, *args: Any) -> Tensor:
        """The operation by name; its method calls the module with it.

        Raises:
            ValueError: there is no such operation.
        """
        if operation not in OPERATIONS:
            raise ValueError(f"FloatFunctional has no {operation!r}, only {', '.join(OPERATIONS)}")
        return self._quantized(OPERATIONS[operation](*args))

    @property
    def ir_whole(self) -> bool:
        """Whether a graph shows it as one operation: not with a quantizer that is a part."""
        return isinstance(self.quantizer, nn.Identity)

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        """first + second"""
        return self._call("add", first, second)

    def add_relu(self, first: Tensor, second: Tensor) -> Tensor:
        """relu(first + second), whose inner value no target stores."""
        return self._call("add_relu", first, second)

    def add_scalar(self, value: Tensor, number: float) -> Tensor:
        """value + number"""
        return self._call("add_scalar", value, number)

    def sub(self, first: Tensor, second: Tensor) -> Tensor:
        """first - second"""
        return self._call("sub", first, second)

    def sub_scalar(self, value: Tensor, number: float) -> Tensor:
        """value - number"""
        return self._call("sub_scalar", value, number)

    def mul(self, first: Tensor, second: Tensor) -> Tensor:
        """first * second"""
        return self._call("mul", first, second)

    def mul_scalar(self, value: Tensor, number: float) -> Tensor:
        """value * number"""
        return self._call("mul_scalar", value, number)

    def div(self, first: Tensor, second: Tensor) -> Tensor:
        """first / second"""
        return self._call("div", first, second)

    def div_scalar(self, value: Tensor, number: float) -> Tensor:
        """value / number"""
        return self._call("div_scalar", value, number)

    def matmul(self, first: Tensor, second: Tensor) -> Tensor:
        """first @ second"""
        return self._call("matmul", first, second)

    def cat(self, values: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The values one behind the other along `dim`."""
        return self._call("cat", list(values), dim)

    def stack(self, values: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The values along a new dimension `dim`."""
        return self._call("stack", list(values), dim)

    def _call(self, operation: str, *args: Any) -> Tensor:
        result: Tensor = self(operation, *args)
        return result

    def _quantized(self, value: Tensor) -> Tensor:
        if isinstance(self.quantizer, nn.Identity):
            return value
        result: Tensor = self.quantizer(value)
        return result

    def ir_label(self) -> str:
        """How it prints in a graph."""
        return "float_functional"
