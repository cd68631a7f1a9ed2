"""Attention in steps: two products of matrices around a softmax.

scaled_dot_product_attention(q, k, v)   ->   softmax(matmul(q * scale, transpose(k)) + mask) v
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fx import Node

from fxquant.ir.aten import aten, named_arguments
from fxquant.ir.edit import add_buffer, inherit, is_attribute, read_attribute, tensor_at

from .steps import Steps

MASKED = -64.0
"""What is added to hidden scores: e^-64 is no step of any grid, and 16 bits can hold it."""


def attention(write: Steps, node: Node) -> Node:
    """The query is scaled first, as torch does it; the mask is a constant, or causal."""
    given = named_arguments(node)
    query, key, value = given["query"], given["key"], given["value"]
    width = query.meta["val"].shape[-1]
    factor = 1 / math.sqrt(width) if given["scale"] is None else given["scale"]
    query = write(aten.mul.Scalar, query, factor, name="query")
    key = write(aten.transpose.int, key, -2, -1, name="key")
    scores = write(aten.matmul.default, query, key, name="scores")
    mask = _mask(write, scores, given["attn_mask"], given["is_causal"])
    if mask is not None:
        scores = write(aten.add.Tensor, scores, mask, name="masked")
    weights = write(aten.softmax.int, scores, -1, name="weights")
    return write(aten.matmul.default, weights, value, name="mixed")


def _mask(write: Steps, scores: Node, given: Node | None, causal: bool) -> Node | None:
    """What is added to the scores, as a constant; None where nothing is hidden."""
    parts: list[Tensor] = []
    if causal:
        rows, columns = scores.meta["val"].shape[-2:]
        parts.append(torch.ones(rows, columns, dtype=torch.bool).tril())
    if given is not None:
        assert is_attribute(given)
        parts.append(tensor_at(write.root, given).detach())
    if not parts:
        return None
    added = sum((_additive(part) for part in parts), torch.zeros(()))
    path = add_buffer(write.root, f"{write.origin.name}_mask", added)
    with write.root.graph.inserting_before(write.origin):
        mask = read_attribute(write.root.graph, write.root, path)
    return inherit(mask, write.origin, value=False)


def _additive(mask: Tensor) -> Tensor:
    """A mask of truth values (True takes part), or of numbers, as numbers of a 16-bit grid."""
    if mask.dtype == torch.bool:
        return torch.where(mask, 0.0, MASKED)
    return mask.float().clamp(min=MASKED)
