"""What rules compute with: values of the new graph, and constants that are not in it yet.

A constant becomes nodes only when an operator reads it, so that a permuted weight is made once, at
compile time, and nothing unused is left behind.

    Constant("conv.weight", f32[16,3,3,3]).permute((0, 2, 3, 1))     -> Constant f32[16,3,3,3] OHWI
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import Node

from fxquant.ir.types import Quantization, TensorType


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor known at compile time, integers with their quantization.

    Attributes:
        name: the path under which it will stand in the module.
        data: the values; never written into.
        quantization: what the integers mean; None for plain data.
        storage: the dtype in the file where torch cannot hold it, e.g. int4.
        narrow: for floats, the integers or 16-bit floats that are stored, to be turned into
            `data` before they are read; what is computed from `data` forgets them.
    """

    name: str
    data: torch.Tensor
    quantization: Quantization | None = None
    storage: torch.dtype | None = None
    narrow: Constant | None = None

    @property
    def type(self) -> TensorType:
        """Shape, dtype and quantization."""
        dtype = self.storage or self.data.dtype
        return TensorType(tuple(self.data.shape), dtype, self.quantization)

    def permute(self, order: Sequence[int]) -> Constant:
        """The dimensions in another order; the axis of the scales follows."""
        quantization = self.quantization
        if quantization is not None and quantization.axis is not None:
            quantization = replace(quantization, axis=list(order).index(quantization.axis))
        narrow = None if self.narrow is None else self.narrow.permute(order)
        data = self.data.permute(*order)
        return replace(self, data=data, quantization=quantization, narrow=narrow)

    def reshape(self, shape: Sequence[int]) -> Constant:
        """The same elements in another shape; dimensions before the scales' axis must stay."""
        narrow = None if self.narrow is None else self.narrow.reshape(shape)
        return replace(self, data=self.data.reshape(tuple(shape)), narrow=narrow)

    def slice(self, axis: int, start: int, size: int) -> Constant:
        """A range along one axis, with its scales."""
        quantization = self.quantization
        if quantization is not None and quantization.axis == axis:
            part = slice(start, start + size)
            quantization = Quantization(
                quantization.scale[part], quantization.zero_point[part], axis
            )
        narrow = None if self.narrow is None else self.narrow.slice(axis, start, size)
        data = self.data.narrow(axis, start, size)
        return replace(self, data=data, quantization=quantization, narrow=narrow)

    def dequantize(self) -> Constant:
        """The reals that the integers stand for."""
        if self.quantization is None:
            return self
        scale, zero_point = quantization_tensors(self.quantization, self.data.dim())
        return Constant(self.name, (self.data - zero_point).float() * scale)

    def stored(self) -> Constant:
        """The reals, with the integers kept as what is stored."""
        return self if self.quantization is None else replace(self.dequantize(), narrow=self)


Value = Node | Constant


def quantization_tensors(kind: Quantization, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point as tensors that broadcast over a tensor of that rank."""
    scale = torch.tensor(kind.scale, dtype=torch.float32)
    zero_point = torch.tensor(kind.zero_point, dtype=torch.int64)
    if kind.axis is None:
        return scale[0], zero_point[0]
    shape = [1] * rank
    shape[kind.axis] = -1
    return scale.reshape(shape), zero_point.reshape(shape)
