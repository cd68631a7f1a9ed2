"""Quantized values: integers with the scale and zero point that make them reals."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fxquant.errors import InvalidGraph
from fxquant.ir.types import Quantization, TensorType


class QType(NamedTuple):
    """dtype, scale and zero point that an operator gives its result."""

    dtype: str
    scale: float
    zero_point: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch names it.

        >>> QType("int8", 0.5, 0).torch_dtype
        torch.int8
        """
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype


class QTensor(NamedTuple):
    """Integers with the scale and zero point (one, or one per channel) that make them reals.

    Where the file packs them tighter than torch can, `storage` names the dtype that it has.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor
    axis: int | None = None
    storage: str | None = None

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def type(self) -> TensorType:
        """Shape, dtype and quantization as the IR states them."""
        scale, zero_point = tuple(self.scale.tolist()), tuple(self.zero_point.tolist())
        dtype = self.values.dtype if self.storage is None else getattr(torch, self.storage)
        return TensorType(
            tuple(self.values.shape), dtype, Quantization(scale, zero_point, self.axis)
        )

    @property
    def qtype(self) -> QType:
        """The quantization as an operator's `out`, where it is one for the whole tensor."""
        return QType(
            str(self.dtype).removeprefix("torch."), self.one_scale, int(self.zero_point.item())
        )

    @property
    def one_scale(self) -> float:
        """The scale of a tensor quantized as a whole."""
        if self.scale.numel() != 1:
            raise InvalidGraph(f"{self.type} has one scale per channel where only one can be")
        return float(self.scale.item())

    @property
    def offset(self) -> int:
        """The zero point of a tensor quantized as a whole."""
        return int(self.zero_point.reshape(-1)[0].item())

    def centered(self) -> Tensor:
        """values - zero_point as int64."""
        return self.values.to(torch.int64) - self._along_axis(self.zero_point)

    def real(self) -> Tensor:
        """The reals that the integers stand for, each one rounding to float32."""
        scale = self._along_axis(self.scale.to(torch.float64))
        return (self.centered().to(torch.float64) * scale).to(torch.float32)

    def with_values(self, values: Tensor) -> QTensor:
        """Other integers under the same scale and zero point."""
        if self.axis is not None:
            raise InvalidGraph(f"{self.type} has a channel axis, which this operator would move")
        return self._replace(values=values)

    def _along_axis(self, parameter: Tensor) -> Tensor:
        if self.axis is None:
            return parameter.reshape(())
        shape = [1] * self.values.dim()
        shape[self.axis] = -1
        return parameter.reshape(shape)


def quantized(values: Tensor, out: QType) -> QTensor:
    """Integers (any dtype wide enough) as a value of type `out`."""
    with unset_fake_temporarily():
        scale = torch.tensor([out.scale], dtype=torch.float32)
        zero_point = torch.tensor([out.zero_point], dtype=torch.int64)
    return QTensor(values.to(out.torch_dtype), scale, zero_point)
