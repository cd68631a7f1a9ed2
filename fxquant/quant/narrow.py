"""Values that lose bits without a range known beforehand: dynamic integers and narrow floats.

    dynamically_quantized(x[2,5], dims=(-1,))   each row on its own int8 grid, from its least and
                                                greatest value, as XNNPACK's kernels make it
    rounded_to(x, "bfloat16")                   the nearest value that bfloat16 has

Both are float32 in, float32 out, and straight-through for gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LARGEST = {"float16": 65504.0}
"""Beyond it a dtype has only infinity; such values become the largest. bfloat16 reaches as far as
float32."""


@torch.library.custom_op("fxquant::dynamic_quantize", mutates_args=())
def dynamic_quantize(
    x: Tensor, dims: Sequence[int], quant_min: int = -128, quant_max: int = 127
) -> Tensor:
    """A value on grids found from itself; each covers the values that share it, and 0.

    Args:
        x: float values of any shape.
        dims: the dimensions along which one grid holds; there is one for each index of the others.
        quant_min, quant_max: the integers of the grid.

    Returns:
        The rounded values, of the same shape.
    """
    centered, scale = on_own_grids(x, dims, quant_min, quant_max)
    return centered * scale


@dynamic_quantize.register_fake
def _shape(x: Tensor, dims: Sequence[int], quant_min: int = -128, quant_max: int = 127) -> Tensor:
    return torch.empty_like(x)


def _straight_through(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    return gradient, None, None, None


dynamic_quantize.register_autograd(_straight_through)


def on_own_grids(
    x: Tensor, dims: Sequence[int], low: int = -128, high: int = 127
) -> tuple[Tensor, Tensor]:
    """Integers less their zero point, and the scales, both as float32.

    The zero point is rounded from the end whose error is smaller; every step is in float32, so
    that the integers are those of the kernels.

    >>> centered, scale = on_own_grids(torch.tensor([[0.0, 2.55]]), (-1,))
    >>> centered.tolist(), round(scale.item(), 4)
    ([[0.0, 255.0]], 0.01)

    Returns:
        The integers, shaped as x; the scales, of size 1 along `dims`.
    """
    x, dims = x.detach().float(), tuple(dims)
    least = x.amin(dims, keepdim=True).clamp(max=0)
    greatest = x.amax(dims, keepdim=True).clamp(min=0)
    inverse = torch.where(greatest > least, (high - low) / (greatest - least), 1.0)
    from_least, from_greatest = low - least * inverse, high - greatest * inverse
    below = (low + least * inverse) + (high + greatest * inverse) > 0
    zero_point = torch.where(below, from_least, from_greatest).clamp(low, high).round()
    values = (torch.round(x * inverse) + zero_point).clamp(low, high)
    return values - zero_point, 1.0 / inverse


def dynamically_quantized(x: Tensor, dims: Sequence[int], low: int, high: int) -> Tensor:
    """`dynamic_quantize` as a function."""
    result: Tensor = torch.ops.fxquant.dynamic_quantize(x, list(dims), low, high)
    return result


class _Rounded(torch.autograd.Function):
    """Rounding with the gradient of the identity; a plain cast would round the gradient too."""

    @staticmethod
    def forward(value: Tensor, dtype: str) -> Tensor:
        """The nearest values of the dtype."""
        if dtype in LARGEST:
            value = value.clamp(-LARGEST[dtype], LARGEST[dtype])
        return value.to(getattr(torch, dtype)).to(torch.float32)

    @staticmethod
    def setup_context(context: Any, inputs: Any, output: Tensor) -> None:
        """Nothing is needed backwards."""

    @staticmethod
    def backward(context: Any, *gradients: Any) -> tuple[Any, None]:
        """The gradient itself."""
        return gradients[0], None


def rounded_to(value: Tensor, dtype: str) -> Tensor:
    """The nearest values of `float16` or `bfloat16`, as float32.

    >>> rounded_to(torch.tensor([1.001, 1e6]), "float16").tolist()
    [1.0009765625, 65504.0]
    """
    result: Tensor = _Rounded.apply(value, dtype)  # type: ignore[no-untyped-call]
    return result
