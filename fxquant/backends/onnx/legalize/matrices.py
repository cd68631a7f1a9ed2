"""Rules of products of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import elementwise, matrices
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Number, Rewriter, Unsupported
from .weights import bias_of


@legalize(aten.linear.default)
def linear(r: Rewriter, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """Gemm for rows; MatMul and Add for more dimensions."""
    bias = bias_of(r, x, weight, bias)
    if r.rank(x) == 2 and r.rank(weight) == 2:
        operands = (x, weight) if bias is None else (x, weight, bias)
        return r.emit(matrices.gemm, *operands, transB=1)
    turned = r.swap_last(weight) if r.rank(weight) == 2 else weight
    product = r.emit(matrices.matmul, x, turned)
    return product if bias is None else r.emit(elementwise.add, product, bias)


@legalize(aten.matmul.default, aten.bmm.default, aten.mm.default, aten.mv.default)
def matmul(r: Rewriter, x: Value, y: Value) -> Value:
    """MatMul."""
    return r.emit(matrices.matmul, x, y)


@legalize(aten.dot.default)
def dot(r: Rewriter, x: Value, y: Value) -> Value:
    """MatMul of vectors."""
    return r.emit(matrices.matmul, x, y)


def _scaled(r: Rewriter, value: Value, factor: Number) -> Value:
    return value if factor == 1 else r.emit(elementwise.mul, value, *r.operands(factor))


@legalize(aten.addmm.default, aten.baddbmm.default, aten.addbmm.default)
def addmm(
    r: Rewriter, c: Value, x: Value, y: Value, *, beta: Number = 1, alpha: Number = 1
) -> Value:
    """Gemm for matrices, MatMul and Add for batches."""
    if r.rank(x) == 2 and r.result_dtype.is_floating_point:
        return r.emit(matrices.gemm, x, y, c, alpha=float(alpha), beta=float(beta))
    if len(r.result_shape) != 3:
        raise Unsupported("a sum over the batch")
    product = _scaled(r, r.emit(matrices.matmul, x, y), alpha)
    return r.emit(elementwise.add, product, _scaled(r, c, beta))


@legalize(aten.einsum.default)
def einsum(r: Rewriter, equation: str, values: Sequence[Value], **_: object) -> Value:
    """Einsum."""
    return r.emit(matrices.einsum, list(r.operands(*values)), equation=equation)


@legalize(aten.scaled_dot_product_attention.default)
def attention(
    r: Rewriter,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """MatMul, Softmax and MatMul, with a mask added before."""
    if dropout or enable_gqa:
        raise Unsupported("dropout or grouped queries")
    factor = 1 / math.sqrt(r.shape(query)[-1]) if scale is None else scale
    scores: Value = r.emit(
        matrices.matmul, r.emit(elementwise.mul, query, factor), r.swap_last(key)
    )
    scores = _masked(r, scores, mask, causal)
    weights = r.emit(elementwise.softmax, scores, axis=r.rank(scores) - 1)
    return r.emit(matrices.matmul, weights, value)


def _masked(r: Rewriter, scores: Value, mask: Value | None, causal: bool) -> Value:
    lowest = r.constant(torch.tensor(-float("inf"), dtype=r.dtype(scores)), "lowest")
    if causal:
        lower = torch.ones(r.shape(scores)[-2:], dtype=torch.bool).tril()
        scores = r.emit(elementwise.where, r.constant(lower, "causal"), scores, lowest)
    if mask is None:
        return scores
    if r.dtype(mask) == torch.bool:
        return r.emit(elementwise.where, mask, scores, lowest)
    return r.emit(elementwise.add, scores, mask)
