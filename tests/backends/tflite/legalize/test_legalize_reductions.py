"""Reductions, searches and sorting, torch against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from .cases import Case, case, each, normal
from .one_model import after_convolution, check, check_int8

X = normal(2, 3, 4)


NAMES = "mean sum amax amin prod std var norm argmax argmin median"


@pytest.mark.parametrize("name", NAMES.split())
def test_reduction(name: str) -> None:
    function = getattr(torch, name)
    check(function, X)
    check(lambda x: function(x, dim=1), X)
    check(lambda x: function(x, dim=-1, keepdim=True), X)


CASES = {
    "logsumexp": case(lambda x: torch.logsumexp(x, 1), X),
    "logsumexp-large": case(lambda x: torch.logsumexp(x * 1000, 1, keepdim=True), X),
    "cumsum": case(lambda x: x.cumsum(1), X),
    "cumprod": case(lambda x: x.cumprod(1), X),
    "mean-two": case(lambda x: x.mean((1, 2)), X),
    "max": case(torch.max, X),
    "max-dim": case(lambda x: x.max(1), X),
    "min-dim": case(lambda x: x.min(1, keepdim=True), X),
    "aminmax": case(torch.aminmax, X),
    "var-biased": case(lambda x: x.var(1, unbiased=False), X),
    "std-two": case(lambda x: x.std((1, 2)), X),
    "var-mean": case(lambda x: torch.var_mean(x, 1), X),
    "norm-1": case(lambda x: x.norm(p=1, dim=1), X),
    "norm-inf": case(lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1), X),
    "norm-3": case(lambda x: torch.linalg.vector_norm(x, 3, dim=1), X),
    "normalize": case(lambda x: functional.normalize(x, dim=1), X),
    "cosine": case(
        lambda a, b: functional.cosine_similarity(a, b, dim=1), X, normal(2, 3, 4, seed=1)
    ),
    "any": case(lambda x: (x > 0).any(1), X),
    "all": case(lambda x: (x > -9).all(), X),
    "count": case(lambda x: torch.count_nonzero(x > 0), X),
    "topk": case(lambda x: x.topk(2), X),
    "topk-dim": case(lambda x: x.topk(2, dim=1), X),
    "topk-smallest": case(lambda x: x.topk(2, largest=False), X),
    "sort": case(torch.sort, X),
    "sort-descending": case(lambda x: x.sort(dim=1, descending=True), X),
    "argsort": case(torch.argsort, X),
    "kthvalue": case(lambda x: torch.kthvalue(x, 2)[0], X),
    "quantile": case(lambda x: torch.quantile(x, 0.5, dim=1), X),
    "diff": case(torch.diff, X),
    "trace": case(torch.trace, normal(4, 4)),
    "distance": case(nn.PairwiseDistance(), normal(3, 4), normal(3, 4, seed=1)),
}  # fmt: skip


@each(CASES)
def test_form(found: Case) -> None:
    check(found.model, *found.inputs)


INT8: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x.sum((2, 3)),
    "sum-channels": lambda x: x.sum(1),
    "mean": lambda x: x.mean((2, 3)),
    "mean-channels": lambda x: x.mean(1),
    "amax": lambda x: x.amax((2, 3)),
    "max-values": lambda x: x.max(1)[0],
    "argmax": lambda x: x.argmax(1),
}


@each(INT8)
def test_int8(found: Callable[[Tensor], Any]) -> None:
    check_int8(after_convolution(found), normal(1, 4, 6, 6))
