"""Random arithmetic around the shipped patterns: whatever is fused computes the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxquant.passes.functionalize import Functionalize
from fxquant.passes.fusion.registry import registered_fusions
from fxquant.passes.pipeline import Pipeline
from fxquant.tracing import trace
from tests.passes.fusion_graphs import fuse

STEPS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda a, b: a * b,
    lambda a, b: b * a * 0.5,
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a + 3,
    lambda a, b: a - -3,
    lambda a, b: a / 6,
    lambda a, b: a * (1 / 6),
    lambda a, b: -a,
    lambda a, b: torch.sigmoid(a),
    lambda a, b: 1 / (1 + torch.exp(-a)),
    lambda a, b: F.relu6(a),
    lambda a, b: a.clamp(0, 6),
    lambda a, b: a.clamp(min=0),
    lambda a, b: a.clamp(max=6),
    lambda a, b: a.clamp(0, 1),
    lambda a, b: F.hardsigmoid(a),
    lambda a, b: torch.maximum(a, 0.1 * a),
    lambda a, b: torch.tanh(F.softplus(a)),
    lambda a, b: 1 + torch.erf(a / math.sqrt(2)),
    lambda a, b: a * 0.5 * (1 + torch.erf(a / math.sqrt(2))),
    lambda a, b: a * F.relu6(a + 3) / 6,
    lambda a, b: a * torch.sigmoid(a),
    lambda a, b: a.pow(2),
    lambda a, b: a - a.mean(-1, keepdim=True),
    lambda a, b: a * torch.rsqrt((a * a).mean(-1, keepdim=True) + 1e-3),
    lambda a, b: torch.softmax(a @ b.transpose(-1, -2) * 0.3, -1) @ b,
)


def program(seed: int) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """A function of 14 steps whose operands are the last values, most often the very last."""
    choice = random.Random(seed)
    plan = [(choice.choice(STEPS), choice.choices((1, 2, 3), (6, 2, 1), k=2)) for _ in range(14)]
    extra = choice.random() < 0.3

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        values = [x, y, x]
        for step, (first, second) in plan:
            values.append(torch.tanh(step(values[-first], values[-second])))
            if step is not STEPS[0]:
                values[-1] = step(values[-1], values[-1])
        return tuple(values[-3:]) if extra else (values[-1],)

    return run


@pytest.mark.parametrize("seed", range(60))
def test_fused_programs_compute_the_same(seed: int) -> None:
    names = tuple(registered_fusions())
    x = torch.zeros(3, 5, 5, dtype=torch.float64)  # what cancels shows no rounding
    graph_module = Pipeline((Functionalize(),))(trace(program(seed), (x, x)))
    fuse(graph_module, *names)
