"""Which set of the runtime's kernels the integer arithmetic follows.

reference    plain loops (BUILTIN_REF)
optimized    the default kernels without a delegate, as they compute on x86 with AVX2 or AVX-512
xnnpack      the default kernels with the XNNPACK delegate over everything that it takes
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch

Kernels = Literal["reference", "optimized", "xnnpack"]

kernels: ContextVar[Kernels] = ContextVar("kernels", default="reference")


@contextmanager
def use_kernels(name: Kernels) -> Iterator[None]:
    """Compute as this set of kernels does, inside the block.

    >>> with use_kernels("xnnpack"):
    ...     kernels.get()
    'xnnpack'
    """
    token = kernels.set(name)
    try:
        yield
    finally:
        kernels.reset(token)


def delegated(dtype: torch.dtype, low: float, high: float, *ratios: float) -> bool:
    """Whether XNNPACK is selected and takes 8-bit values of these scale ratios, in [low, high).

    Outside the runtime goes back to its own kernel, without a message.
    """
    inside = all(low <= ratio < high for ratio in ratios)
    return kernels.get() == "xnnpack" and dtype in (torch.int8, torch.uint8) and inside
