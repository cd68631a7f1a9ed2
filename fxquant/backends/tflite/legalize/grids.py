"""Grids: the scale and zero point of a value, in the forms that rules need.

finest([0.0, 0.5])   ->   QType("int8", 0.00196, -128)
"""

from __future__ import annotations

import torch

from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.types import Quantization, TensorType

from .inference import dtype_called
from .values import Constant

MOVES = """
reshape transpose squeeze expand_dims concatenation split split_v pack unpack slice strided_slice
pad padv2 mirror_pad gather gather_nd tile broadcast_to reverse_v2 space_to_depth depth_to_space
space_to_batch_nd batch_to_space_nd max_pool_2d average_pool_2d reduce_max reduce_min maximum
minimum topk_v2 resize_bilinear resize_nearest_neighbor dynamic_update_slice
"""
KEEPS_SCALE: dict[str, int] = {**dict.fromkeys(MOVES.split(), 0), "select_v2": 1}
"""Operators whose result has the scale of an operand: which one."""


def with_quantization(kind: TensorType, out: QType) -> TensorType:
    """The same shape on the grid of `out`."""
    quantization = Quantization((out.scale,), (out.zero_point,))
    return TensorType(kind.shape, dtype_called(out.dtype), quantization)


def qtype_of(kind: TensorType) -> QType | None:
    """A per-tensor quantization in the form of `out=`."""
    quantization = kind.quantization
    if quantization is None or quantization.axis is not None:
        return None
    name = str(kind.dtype).removeprefix("torch.")
    return QType(name, quantization.scale[0], quantization.zero_point[0])


def finest(data: torch.Tensor, dtype: torch.dtype) -> QType:
    """The grid with the smallest step that holds all of `data`; 0 among it.

    >>> finest(torch.tensor([0.5]), torch.int8).zero_point
    -128
    """
    limits = torch.iinfo(dtype)
    low, high = min(0.0, float(data.min())), max(0.0, float(data.max()))
    if dtype == torch.int16:
        low, high = -max(-low, high), max(-low, high)
    name = str(dtype).removeprefix("torch.")
    if low == high:
        return QType(name, 1.0, 0)
    if dtype == torch.int16:
        return QType(name, float32(high / limits.max), 0)
    scale = float32((high - low) / (limits.max - limits.min))
    return QType(name, scale, round(limits.min - low / scale))


def float32(number: float) -> float:
    """A Python number as float32 holds it."""
    return float(torch.tensor(number, dtype=torch.float32))


def quantize_constant(value: Constant, out: QType) -> Constant:
    """A float constant on a given grid, rounded half to even as torch's fake_quantize does."""
    dtype = dtype_called(out.dtype)
    limits = torch.iinfo(dtype)
    steps = torch.round(value.data.double() / out.scale) + out.zero_point
    data = steps.clamp(limits.min, limits.max).to(dtype)
    return Constant(value.name, data, Quantization((out.scale,), (out.zero_point,)))
