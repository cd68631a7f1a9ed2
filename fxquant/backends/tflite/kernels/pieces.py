"""Integer arithmetic piece by piece: a dozen int64 passes stay in the cache.

whole       int64 temporaries of the size of the result, each in fresh memory
in pieces   temporaries of 256 KiB, 5 to 10 times faster on a large image
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ELEMENTS = 1 << 15


def in_pieces(function: Callable[..., Tensor], dtype: torch.dtype, *operands: Tensor) -> Tensor:
    """`function` of equal pieces of the operands along dimension 0, results as `dtype`.

    >>> in_pieces(lambda x, y: x + y, torch.int8, torch.arange(3), torch.arange(3))
    tensor([0, 2, 4], dtype=torch.int8)
    """
    first = operands[0]
    result = torch.empty(first.shape, dtype=dtype)
    if not first.numel():
        return result
    rows = max(1, _ELEMENTS * first.shape[0] // first.numel())
    for start in range(0, first.shape[0], rows):
        end = start + rows
        result[start:end] = function(*(operand[start:end] for operand in operands))
    return result


def elementwise(function: Callable[..., Tensor], dtype: torch.dtype, *operands: Tensor) -> Tensor:
    """`function` of tensors broadcast against each other."""
    shaped = torch.broadcast_tensors(*operands)
    flat = (operand.reshape(-1) for operand in shaped)
    return in_pieces(function, dtype, *flat).reshape(shaped[0].shape)
