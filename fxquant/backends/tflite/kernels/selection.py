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
