"""Ranges that all ranks of a distributed training agree on, bit for bit.

    rank 0 sees [-1, 2], rank 1 sees [-3, 1]   ->   both take [-3, 2]

Each rank sees its own part of a batch. Without this, every rank would round to a grid of its own,
and the ranks' gradients would belong to different models.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_shared() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def shared_extremes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest low and the largest high of all ranks: one collective call.

    Infinity comes back where any rank has NaN or infinity.
    """
    both = torch.stack((-low, high)).nan_to_num(nan=torch.inf)
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return -both[0], both[1]
