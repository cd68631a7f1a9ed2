"""16-bit floats as the constants that the file stores.

_to_copy(@w: f16) {dtype=f32}   ->   the reals, stored as float16 behind a DEQUANTIZE
"""

from __future__ import annotations

import torch

from .values import Constant


def stored_form(value: Constant, bfloat16_storage: str) -> Constant | None:
    """What is stored of a constant that is cast to float32; None where that is float32 itself.

    Args:
        value: the constant before the cast.
        bfloat16_storage: dtype for bfloat16; float16 only where it holds the same values.
    """
    if value.data.dtype == torch.float16:
        return value
    if value.data.dtype != torch.bfloat16 or bfloat16_storage == "float32":
        return None
    if bfloat16_storage == "bfloat16":
        return value
    half = value.data.to(torch.float16)
    exact = torch.equal(half.to(torch.float32), value.data.to(torch.float32))
    return Constant(value.name, half) if exact else None
