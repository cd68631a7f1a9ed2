"""`explain_match` in words: matches, refusals, and the nearest place with why it stopped there."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

import fxquant as fq
from tests.conftest import Golden

X = torch.zeros(2, 5, 8)


def wrong_constant(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 1.5))


def wrong_operator(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.tanh(x / math.sqrt(2)))


def right(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def read_elsewhere(x: Tensor) -> Tensor:
    erf = torch.erf(x / math.sqrt(2))
    return x * 0.5 * (1 + erf) + erf


def other_values(x: Tensor) -> Tensor:
    return F.relu(x) * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def nothing_alike(x: Tensor) -> Tensor:
    return F.relu(x)


MODELS = (right, wrong_constant, wrong_operator, read_elsewhere, other_values, nothing_alike)


def test_every_kind_of_answer(golden: Golden) -> None:
    answers = [
        f"{model.__name__}\n{fq.explain_match('gelu-erf', fq.trace(model, (X,)))}\n"
        for model in MODELS
    ]
    golden("explain-match", "\n".join(answers))


def test_a_functional_graph_is_left_as_it_was() -> None:
    graph_module = fq.Pipeline.parse("functionalize")(fq.trace(right, (X,)))
    before = fq.format_graph(graph_module)
    assert fq.explain_match("gelu-erf", graph_module).startswith("gelu-erf matches")
    assert fq.format_graph(graph_module) == before
