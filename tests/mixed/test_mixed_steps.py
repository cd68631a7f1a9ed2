"""The order of steps, the budget, and the figures of layers."""

from __future__ import annotations

import math

import pytest

from fxquant.errors import ConfigError
from fxquant.mixed.budget import Budget
from fxquant.mixed.layers import Layer
from fxquant.mixed.noise import Noise, decibels
from fxquant.mixed.steps import Option, Step, milliseconds, steps_of
from fxquant.quant.costs import GENERIC, CostTable
from fxquant.quant.spec import FLOAT32, INT8, PRECISIONS

INT16 = PRECISIONS["int16x8"]


def layer(name: str, macs: int = 0, elements: int = 10) -> Layer:
    return Layer(name, (name,), "linear", name, "", INT8, 100, 10, macs, elements, False)


def shown(steps: list[Step]) -> list[str]:
    return [f"{step.layer.name} {step.precision}" for step in steps]


def test_what_helps_most_for_its_cost_goes_first() -> None:
    a = [Option(INT8, 1, 10), Option(INT16, 2, 1), Option(FLOAT32, 6, 0)]
    b = [Option(INT8, 1, 4), Option(FLOAT32, 2, 0)]
    steps = steps_of([(layer("a"), a), (layer("b"), b)])
    assert shown(steps) == ["a int16x8", "b float32", "a float32"]
    assert [step.gain for step in steps] == [9, 4, 1]


def test_a_precision_above_the_hull_is_skipped() -> None:
    options = [Option(INT8, 1, 10), Option(INT16, 8, 5), Option(FLOAT32, 3, 0)]
    assert shown(steps_of([(layer("a"), options)])) == ["a float32"]


def test_what_costs_nothing_goes_first_and_what_does_not_help_never() -> None:
    free = [Option(INT8, 1, 0.1), Option(FLOAT32, 1, 0)]
    dear = [Option(INT8, 1, 9), Option(FLOAT32, 2, 0)]
    vain = [Option(INT8, 1, 0), Option(FLOAT32, 2, 0)]
    steps = steps_of([(layer("dear"), dear), (layer("free"), free), (layer("vain"), vain)])
    assert shown(steps) == ["free float32", "dear float32"]
    assert steps[0].merit == math.inf


def test_latency_by_macs_or_elements() -> None:
    table = CostTable({"linear": {"float32": 20.0, "int8": 5.0}, "elementwise": {"float32": 100.0}})
    assert milliseconds(table, layer("a", macs=10**9), INT8) == pytest.approx(5.0)
    assert milliseconds(table, layer("a", macs=10**9), INT16) == pytest.approx(20.0)
    assert milliseconds(table, layer("a", elements=10**7), FLOAT32) == pytest.approx(1.0)
    assert GENERIC.milliseconds("linear", "int8", 4) < GENERIC.milliseconds("linear", "int16", 4)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "the budget demands nothing"),
        ({"metric": lambda graph: 1.0}, "belong together"),
        ({"least": 0.5}, "belong together"),
        ({"sqnr": 30, "spare": "money"}, "spare='money' is not known"),
    ],
)
def test_budgets_that_mean_nothing(given: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Budget(**given)  # type: ignore[arg-type]


def test_budgets() -> None:
    budget = Budget(sqnr=30, metric=lambda graph: 1.0, least=0.9, size=100)
    assert budget.is_accurate(30, 0.9)
    assert not budget.is_accurate(29, 0.95)
    assert not budget.is_accurate(31, 0.8)
    assert budget.fits(100, 1e9)
    assert not budget.fits(101, 0)


def test_noise_of_several_outputs_is_their_mean() -> None:
    import torch

    noise = Noise()
    for _ in range(3):
        noise.add([torch.ones(2), torch.ones(1) * 100], [torch.ones(2) * 1.1, torch.ones(1) * 100])
    assert noise.sqnr == pytest.approx(23.01, abs=0.01)
    assert decibels(0) == math.inf
    assert decibels(math.nan) == -math.inf
