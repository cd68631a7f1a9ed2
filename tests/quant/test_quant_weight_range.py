"""The range of least squared error for constants of few bits."""

from __future__ import annotations

import pytest
import torch

from fxquant.quant.config import QuantConfig
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.spec import INT4_WEIGHTS, PRECISIONS, QuantSpec


def error(spec: QuantSpec, weight: torch.Tensor) -> torch.Tensor:
    """The squared error of each row when it is rounded."""
    module = FakeQuantize(spec, weight.shape[0], constant=True)
    module.switch(observing=True, quantizing=True)
    rounded: torch.Tensor = module(weight)
    return (rounded - weight).square().flatten(1).sum(1)


def minmax(axis: int | None) -> QuantSpec:
    return QuantSpec("int4", qmin=-7, symmetric=True, observer="minmax", axis=axis)


def test_no_row_is_worse_than_with_minmax() -> None:
    weight = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0)) ** 3
    found, usual = error(INT4_WEIGHTS.along(0), weight), error(minmax(0), weight)
    assert (found <= usual * 1.0001).all() and found.sum() < 0.97 * usual.sum()


def test_an_outlier_is_cut() -> None:
    weight = torch.cat([torch.linspace(-0.1, 0.1, 500), torch.tensor([0.5])]).reshape(1, -1)
    module = FakeQuantize(INT4_WEIGHTS, constant=True)
    module.switch(observing=True, quantizing=True)
    module(weight)
    assert float(module.scale) * 7 < 0.35


def test_what_lies_on_the_grid_is_kept() -> None:
    weight = torch.arange(-7.0, 8.0).repeat(2, 1) * torch.tensor([[0.5], [3.0]])
    assert error(INT4_WEIGHTS.along(0), weight).max() == 0


@pytest.mark.parametrize("axis", [None, 0])
def test_zeros_stay_zeros(axis: int | None) -> None:
    assert error(INT4_WEIGHTS.along(axis), torch.zeros(3, 4)).max() == 0


def test_every_precision_with_4_bits_uses_it() -> None:
    specs = [each.weights for each in PRECISIONS.values() if each.weights is not None]
    used = {spec.observer for spec in specs if spec.dtype == "int4"}
    assert used == {"least_squares"}


def test_whole_ranges_where_only_biases_are_corrected() -> None:
    def observer(config: QuantConfig) -> str:
        weights = config.resolved("int8w4").weights
        assert weights is not None
        return weights.observer

    assert observer(QuantConfig("int8w4")) == "least_squares"
    assert observer(QuantConfig("int8w4", refine_rounding=True)) == "least_squares"
    assert observer(QuantConfig("int8w4", refine_rounding=False)) == "minmax"
    assert observer(QuantConfig(refine_rounding=False)) == "minmax"
    alone = QuantConfig("int8w4", refine_rounding=False, correct_bias=False)
    assert observer(alone) == "least_squares"
    own = QuantConfig("int8w4", weights=INT4_WEIGHTS, refine_rounding=False)
    assert own.resolved("int8w4").weights == INT4_WEIGHTS
