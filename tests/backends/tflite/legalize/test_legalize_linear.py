"""Dense layers, matrix products, einsum and attention, torch against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from .cases import Case, case, each, normal
from .one_model import check, check_int8

MATRIX = normal(4, 5)

PRODUCTS = [
    ((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)),
    ((4,), (4,)), ((2, 1, 3, 4), (5, 4, 6)), ((2, 3, 2, 2, 3, 4), (2, 3, 2, 2, 4, 5)),
    ((2, 3, 4), (4,)),
]  # fmt: skip


@pytest.mark.parametrize("left,right", PRODUCTS)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    check(torch.matmul, normal(*left), normal(*right, seed=1))


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 3, 4, 8), (8,)])
def test_linear(shape: tuple[int, ...]) -> None:
    check(nn.Linear(8, 5), normal(*shape))
    check(nn.Linear(8, 5, bias=False), normal(*shape))


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8)])
def test_integer_linear(shape: tuple[int, ...]) -> None:
    check_int8(nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 7)), normal(*shape))


CASES = {
    "computed": case(functional.linear, normal(3, 8), normal(5, 8), normal(5)),
    "bilinear": case(nn.Bilinear(4, 5, 3), normal(2, 4), normal(2, 5)),
    "constant-right": case(lambda x: x @ MATRIX, normal(2, 3, 4)),
    "constant-left": case(lambda x: MATRIX.t() @ x, normal(4, 3)),
    "transposed": case(lambda x, y: x @ y.mT, normal(2, 3, 4), normal(2, 5, 4)),
    "addmm": case(torch.addmm, normal(5), normal(3, 4), normal(4, 5)),
    "addmm-scaled": case(
        lambda a, b, c: torch.addmm(a, b, c, beta=0.5, alpha=2.0),
        normal(3, 5), normal(3, 4), MATRIX,
    ),
    "baddbmm": case(torch.baddbmm, normal(2, 3, 5), normal(2, 3, 4), normal(2, 4, 5)),
    "addbmm": case(torch.addbmm, normal(3, 5), normal(2, 3, 4), normal(2, 4, 5)),
    "addmv": case(torch.addmv, normal(3), normal(3, 4), normal(4)),
    "outer": case(torch.outer, normal(4), normal(3)),
    "tensordot": case(
        lambda a, b: torch.tensordot(a, b, dims=2), normal(2, 3, 4), normal(3, 4, 5)
    ),
    "kron": case(torch.kron, normal(2, 3), normal(3, 2)),
    "cdist": case(torch.cdist, normal(3, 4), normal(5, 4)),
}  # fmt: skip


@each(CASES)
def test_product(found: Case) -> None:
    check(found.model, *found.inputs)


EQUATIONS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("ij,j->i", [(3, 4), (4,)]),
    ("i,j->ij", [(3,), (4,)]),
    ("ij->ji", [(3, 4)]),
    ("ij->", [(3, 4)]),
    ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
    ("bcij,cd->bdij", [(2, 3, 4, 5), (3, 6)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("bic,bjc->ij", [(2, 3, 4), (2, 5, 4)]),
    ("nchw,nkc->nkhw", [(1, 3, 4, 4), (1, 5, 3)]),
]


@pytest.mark.parametrize("equation,shapes", EQUATIONS)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    inputs = [normal(*shape, seed=n) for n, shape in enumerate(shapes)]
    check(lambda *x: torch.einsum(equation, *x), *inputs)


QUERY = normal(2, 3, 5, 8)


def _attend(**options: Any) -> Callable[..., Tensor]:
    return lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, **options)


def _masked(q: Tensor, m: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, q, q, attn_mask=m)


def _hidden(q: Tensor, m: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, q, q, attn_mask=m > 0)


ATTENTION = {
    "plain": case(_attend(), QUERY, normal(2, 3, 6, 8), normal(2, 3, 6, 8, seed=1)),
    "causal": case(_attend(is_causal=True), QUERY, QUERY, QUERY),
    "scaled": case(_attend(scale=0.2), QUERY, QUERY, QUERY),
    "added": case(_masked, QUERY, normal(5, 5)),
    "hidden": case(_hidden, QUERY, normal(5, 5).fill_diagonal_(1)),
    "encoder": case(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), normal(2, 5, 8)),
    "decoder": case(
        nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), normal(2, 5, 8), normal(2, 4, 8)
    ),
    "heads": case(nn.MultiheadAttention(8, 2, batch_first=True), *[normal(2, 5, 8)] * 3),
}


@each(ATTENTION)
def test_attention(found: Case) -> None:
    check(found.model, *found.inputs)
