"""What a value is: shape, dtype and quantization, and how that prints.

f32[1,3,8,8]                    a float tensor
i8<0.0235,-3>[1,4,8,8]          int8, real = 0.0235 * (q + 3)
i8<0.01:0.04,0,axis=0>[16,3,3,3]   one scale per channel, from 0.01 to 0.04
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

INT4: torch.dtype = torch.int4  # type: ignore[attr-defined]  # torch's stubs lack it
"""A dtype that torch knows by name only; such values are int8 tensors."""

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    INT4: "i4",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "bool",
    torch.complex64: "c64",
    torch.complex128: "c128",
}


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of a dtype.

    >>> dtype_name(torch.float32)
    'f32'
    """
    return DTYPE_NAMES.get(dtype, str(dtype).removeprefix("torch."))


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (integer - zero_point), per tensor or along an axis."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    def __str__(self) -> str:
        if self.axis is None:
            return f"{self.scale[0]:.4g},{self.zero_point[0]}"
        low, high = min(self.scale), max(self.scale)
        zeros = sorted(set(self.zero_point))
        zero = str(zeros[0]) if len(zeros) == 1 else f"{zeros[0]}:{zeros[-1]}"
        return f"{low:.4g}:{high:.4g},{zero},axis={self.axis}"


@dataclass(frozen=True)
class TensorType:
    """Shape, dtype and, for integers that stand for reals, quantization of one value.

    >>> str(TensorType((1, 4), torch.int8, Quantization((0.5,), (-3,))))
    'i8<0.5,-3>[1,4]'
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    quantization: Quantization | None = None

    def __str__(self) -> str:
        quantization = f"<{self.quantization}>" if self.quantization else ""
        return f"{dtype_name(self.dtype)}{quantization}[{','.join(map(str, self.shape))}]"

    @staticmethod
    def of(tensor: torch.Tensor) -> TensorType:
        """The type of a real, fake or meta tensor."""
        return TensorType(tuple(int(size) for size in tensor.shape), tensor.dtype)
