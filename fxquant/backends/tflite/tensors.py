"""The tensors and buffers of the file while it is put together.

    table.constant("conv.weight", data, type)   a weight: its memory is viewed, not copied
    table.literal(array([0, 2, 3, 1]))          an operand such as a permutation, shared by content
    table.activation("conv", type)              a value that the runtime computes

Equal small constants and identical large ones (tied weights) share one buffer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fxquant.backends.tflite.contents import Bytes, FileTensor
from fxquant.ir.types import Quantization, TensorType

CONTENT_LIMIT = 64 * 1024  # constants up to this size are compared by content
INT4 = "int4"


class TensorTable:
    """Tensors in the order they were asked for, with unique names."""

    def __init__(self) -> None:
        self.tensors: list[FileTensor] = []
        self.buffers: list[Bytes] = [b""]
        self._names: dict[str, int] = {}
        self._buffers: dict[object, int] = {}
        self._constants: dict[object, int] = {}

    def activation(self, name: str, kind: TensorType) -> int:
        """A tensor that the runtime fills; the index of it."""
        return self._add(name, kind, dtype_of(kind.dtype), buffer=0)

    def make_variable(self, index: int) -> None:
        """Let a tensor be one that an operator overwrites and keeps."""
        self.tensors[index] = replace(self.tensors[index], is_variable=True)

    def constant(self, name: str, data: torch.Tensor, kind: TensorType) -> int:
        """A tensor with these values, one for each pair of memory and type."""
        key = (data.data_ptr(), data.shape, data.stride(), kind)
        if data.numel() == 0 or key not in self._constants:
            dtype = dtype_of(kind.dtype)
            buffer = self._buffer(_bytes_of(data, dtype))
            self._constants[key] = self._add(name, kind, dtype, buffer)
        return self._constants[key]

    def literal(self, array: npt.NDArray[Any]) -> int:
        """A constant tensor for an operand that is a Python tuple or number in the graph."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            buffer = self._buffer(np.ascontiguousarray(array).reshape(-1).data.cast("B"))
            tensor = FileTensor(
                self._unique(_literal_name(array)), array.shape, str(array.dtype), buffer=buffer
            )
            self._constants[key] = self._append(tensor)
        return self._constants[key]

    def _add(self, name: str, kind: TensorType, dtype: str, buffer: int) -> int:
        shape, signature = static_shape(kind.shape)
        quantization = None if kind.quantization is None else even_lengths(kind.quantization)
        unique = self._unique(name)
        return self._append(FileTensor(unique, shape, dtype, quantization, buffer, signature))

    def _append(self, tensor: FileTensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _unique(self, name: str) -> str:
        taken = name
        while taken in self._names:
            self._names[name] += 1
            taken = f"{name}_{self._names[name]}"
        self._names[taken] = 0
        return taken

    def _buffer(self, data: memoryview) -> int:
        if not data.nbytes:
            return 0
        small = data.nbytes <= CONTENT_LIMIT
        key: object = bytes(data) if small else (_address(data), data.nbytes)
        if key not in self._buffers:
            self.buffers.append(data)
            self._buffers[key] = len(self.buffers) - 1
        return self._buffers[key]


def dtype_of(dtype: torch.dtype) -> str:
    """The schema's name of a dtype, in small letters.

    >>> dtype_of(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def static_shape(shape: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Concrete sizes and, where some are dynamic, the signature with -1 at those.

    >>> static_shape((-1, 3))
    ((1, 3), (-1, 3))
    >>> static_shape((2, 3))
    ((2, 3), None)
    """
    fixed = tuple(isinstance(size, int) and size >= 0 for size in shape)
    if all(fixed):
        return tuple(shape), None
    concrete = tuple(size if known else 1 for size, known in zip(shape, fixed, strict=True))
    return concrete, tuple(size if known else -1 for size, known in zip(shape, fixed, strict=True))


def even_lengths(quantization: Quantization) -> Quantization:
    """As many zero points as scales: the runtime refuses one for many.

    >>> even_lengths(Quantization((0.5, 0.25), (0,), 0)).zero_point
    (0, 0)
    """
    missing = len(quantization.scale) - len(quantization.zero_point)
    if missing <= 0:
        return quantization
    zero_point = (*quantization.zero_point, *quantization.zero_point[-1:] * missing)
    return Quantization(quantization.scale, zero_point, quantization.axis)


def pack_int4(values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Two values a byte, the first in the low half, rows not padded.

    >>> [hex(byte) for byte in pack_int4(np.array([1, -1, 7], np.int8))]
    ['0xf1', '0x7']
    """
    flat = values.reshape(-1).view(np.uint8) & np.uint8(0x0F)
    packed = flat[0::2].copy()
    packed[: flat.size // 2] |= flat[1::2] << np.uint8(4)
    return packed


def _bytes_of(data: torch.Tensor, dtype: str) -> memoryview:
    flat = data.detach().cpu().contiguous().reshape(-1)
    if dtype == INT4:
        return pack_int4(flat.to(torch.int8).numpy()).data
    return flat.view(torch.uint8).numpy().data


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


def _literal_name(array: npt.NDArray[Any]) -> str:
    """A name that says the value: `const/0_2_3_1`."""
    values = "_".join(map(str, array.reshape(-1)[:8].tolist()))
    return f"const/{values}{'_etc' if array.size > 8 else ''}"
