"""Scaled dot-product attention as two BATCH_MATMULs round a SOFTMAX.

scaled_dot_product_attention(q, k, v)   ->   softmax(q k^T * scale + mask) v
"""

from __future__ import annotations

import math

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .linear import matmul
from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value

MASKED = -1e9  # far below any score, and still finite: a row of -inf would make NaN


@legalize(aten.scaled_dot_product_attention.default)
def scaled_dot_product_attention(
    r: Rewriter,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """The query is scaled first, as torch does it; grouped heads are repeated."""
    if dropout:
        raise Unsupported("attention with dropout: call model.eval() first")
    if enable_gqa:
        key, value = (_repeated(r, each, r.shape(query)[-3]) for each in (key, value))
    factor = 1 / math.sqrt(r.shape(query)[-1]) if scale is None else scale
    rank = len(r.shape(key))
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    scores = matmul(r, r.emit(tfl.mul, query, r.scalar(factor)), r.transpose(key, swapped))
    if is_causal:
        rows, columns = r.shape(scores)[-2:]
        hidden = torch.ones(rows, columns, dtype=torch.bool).triu(1)
        scores = r.emit(tfl.add, scores, r.constant(hidden.float() * MASKED, "causal"))
    if mask is not None:
        scores = r.emit(tfl.add, scores, _additive(r, mask))
    return matmul(r, r.emit(tfl.softmax, scores, beta=1.0), value)


def _additive(r: Rewriter, mask: Value) -> Value:
    """A mask of truth values (True takes part) as numbers to add."""
    if r.dtype(mask) != torch.bool:
        return mask
    if isinstance(mask, Constant):
        return Constant(mask.name, torch.where(mask.data, 0.0, MASKED))
    zeros = r.broadcast(r.scalar(0.0), r.shape(mask))
    return r.emit(tfl.select_v2, mask, zeros, r.broadcast(r.scalar(MASKED), r.shape(mask)))


def _repeated(r: Rewriter, x: Value, heads: int) -> Value:
    *lead, own, length, width = r.shape(x)
    if own == heads:
        return x
    wide = r.reshape(x, (*lead, own, 1, length, width))
    many = r.broadcast(wide, (*lead, own, heads // own, length, width))
    return r.reshape(many, (*lead, heads, length, width))
