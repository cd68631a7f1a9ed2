"""Attention written out by hand becomes one operator.

    softmax(q @ k^T * scale + mask) @ v   ->   scaled_dot_product_attention(q, k, v, mask, scale)

Not applied unless named, since targets compute its parts in integers and the whole in float.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fxquant.passes.fusion.match import Match
from fxquant.passes.fusion.registry import register_fusion
from fxquant.passes.fusion.wildcards import any_float, either, optional

SHAPES = {"q": (2, 4, 6, 8), "k": (2, 4, 5, 8), "v": (2, 4, 5, 8), "mask": (6, 5)}


def as_one(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = optional,
    scale: float = any_float,
    early: bool = False,
) -> Tensor:
    """The operator of torch."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _of_heads(match: Match) -> bool | str:
    ranks = {len(match.shape(name)) for name in ("q", "k", "v")}
    return len(ranks) == 1 or "q, k and v have different numbers of dimensions"


@register_fusion(
    "attention", needs=("softmax",), replace=as_one, check=_of_heads, shapes=SHAPES, default=False
)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = optional,
    scale: float = any_float,
    early: bool = either(True, False),
) -> Tensor:
    """The scale after the product or already at the queries; without any it is 1."""
    scores = (q * scale) @ k.transpose(-2, -1) if early else q @ k.transpose(-2, -1) * scale
    return torch.softmax(scores if mask is None else scores + mask, -1) @ v
