"""Every spelling of an operation matches a pattern that was written with another one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from fxquant.passes.fusion import registry
from fxquant.passes.fusion.registry import registered_fusions
from tests.passes.fusion_graphs import fused, operators

SHAPE = (2, 3, 4, 4)
Pair = Callable[[Tensor, Tensor], Tensor]
Unary = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def pattern(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The sum of three times one value and another, rectified; forgotten afterwards."""
    registered_fusions()
    monkeypatch.setattr(registry, "_fusions", dict(registry._fusions))

    def replacement(x: Tensor, y: Tensor) -> Tensor:
        total = 3.0 * x + y
        return (total + total.abs()) * 0.5

    @fq.register_fusion("scaled-sum", replace=replacement)
    def scaled_sum(x: Tensor, y: Tensor) -> Tensor:
        return F.relu(3.0 * x + y)

    yield


def _augmented(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x += y
    return x


SUMS: dict[str, Pair] = {
    "operator": lambda x, y: x + y,
    "swapped": lambda x, y: y + x,
    "function": torch.add,
    "method": lambda x, y: x.add(y),
    "in place": lambda x, y: x.clone().add_(y),
    "augmented": _augmented,
    "operator module": operator.add,
    "Tensor function": torch.Tensor.add,
    "overload": lambda x, y: torch.ops.aten.add.Tensor(x, y),
    "reflected": lambda x, y: x.__radd__(y),
}
PRODUCTS: dict[str, Unary] = {
    "number first": lambda x: 3.0 * x,
    "number last": lambda x: x * 3.0,
    "function": lambda x: torch.mul(x, 3.0),
    "multiply": lambda x: torch.multiply(x, 3.0),
    "in place": lambda x: x.clone().mul_(3.0),
    "integer": lambda x: x * 3,
    "tensor": lambda x: x * torch.tensor(3.0),
}
RELUS: dict[str, Unary] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional": F.relu,
    "functional in place": lambda x: F.relu(x, inplace=True),
    "underscore": F.relu_,
    "torch": torch.relu,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "overload": torch.ops.aten.relu.default,
}


class Spelled(nn.Module):
    """One spelling of each part."""

    def __init__(self, product: Unary, total: Pair, relu: Unary) -> None:
        super().__init__()
        self.product, self.total, self.relu = product, total, relu

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.relu(self.total(self.product(x), y))


def assert_matches(model: nn.Module) -> None:
    assert "abs" in operators(fused(model, SHAPE, SHAPE, names=("scaled-sum",)))


@pytest.mark.parametrize("name", SUMS)
def test_a_sum(name: str) -> None:
    assert_matches(Spelled(PRODUCTS["number first"], SUMS[name], F.relu))


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product(name: str) -> None:
    assert_matches(Spelled(PRODUCTS[name], SUMS["operator"], F.relu))


@pytest.mark.parametrize("name", RELUS)
def test_a_relu(name: str) -> None:
    assert_matches(Spelled(PRODUCTS["number first"], SUMS["operator"], RELUS[name]))


def test_what_is_spelled_alike_and_is_another_operation() -> None:
    for total in (torch.sub, lambda x, y: torch.add(x, y, alpha=2)):
        model = Spelled(PRODUCTS["number first"], total, F.relu)
        assert "abs" not in operators(fused(model, SHAPE, SHAPE, names=("scaled-sum",)))
