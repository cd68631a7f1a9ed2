"""Where values enter and leave the graph, and where they change between reals and integers.

    %w = constant(@weight, scale=@scale, zero_point=@zero, axis=0)   a stored tensor
    %q = bind(%x, out=QType("int8", 0.02, -3))                       an int8 input of the graph
    %y = quantize(%f, out=QType("int8", 0.02, -3))                   an operator of the file
    %f = dequantize(%y)
    %r = unbind(%y)                                                  an int8 output of the graph

`constant`, `bind` and `unbind` are no operators: in the file the tensor itself has the scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ..kernels.quantization import dequantize_real, quantize_real, requantize
from .values import QTensor, QType, Value, has_data, needs_out, operator, quantized

Numbers = Tensor | Sequence[float] | float


def _vector(numbers: Numbers, dtype: torch.dtype) -> Tensor:
    if isinstance(numbers, Tensor):
        return numbers.detach().to(dtype).reshape(-1)
    with unset_fake_temporarily():
        return torch.as_tensor(numbers, dtype=dtype).reshape(-1)


def constant(
    data: Tensor,
    scale: Numbers | None = None,
    zero_point: Numbers = 0,
    axis: int | None = None,
    *,
    storage: str | None = None,
) -> Value:
    """A stored tensor; quantized where it has a scale (one per index of `axis`, if given).

    `storage="int4"` packs the integers in the file; here they are int8.
    """
    if scale is None:
        return data
    scales = _vector(scale, torch.float32)
    zeros = _vector(zero_point, torch.int64)
    if zeros.numel() == 1 and scales.numel() > 1:
        zeros = zeros.expand(scales.numel())
    return QTensor(data, scales, zeros, axis, storage)


def bind(x: Tensor, *, out: QType) -> QTensor:
    """Raw integers, as a caller gives them, with the meaning that the graph's input has."""
    return quantized(x, out)


def unbind(x: Value) -> Tensor:
    """The raw integers of a value, as a caller gets them."""
    return x.values if isinstance(x, QTensor) else x


@operator()
def quantize(x: Value, *, out: QType | None = None) -> Value:
    """QUANTIZE: reals to integers, or integers of one scale to integers of another."""
    if isinstance(x, QTensor):
        return requantize(x, needs_out(out, "quantize"))
    if out is None:  # only the shape is asked for
        return x
    if not has_data(x):
        return quantized(x, out)
    return quantize_real(x, out)


@operator()
def dequantize(x: Value) -> Tensor:
    """DEQUANTIZE: integers (or 16-bit floats) to float32."""
    return dequantize_real(x) if isinstance(x, QTensor) else x.to(torch.float32)
