"""The histogram against exact counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxquant.quant.histogram import (
    BINS,
    HALF,
    SAMPLES,
    Histogram,
    centers,
    counted,
    empty_histogram,
    grown,
    merged,
    quantiles,
    sampled,
)


def histogram_of(*batches: Tensor) -> Histogram:
    found = empty_histogram()
    for batch in batches:
        found = counted(grown(found, batch.abs().max()), sampled(batch))
    return found


@settings(max_examples=25)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_nothing_is_lost(values: list[float]) -> None:
    found = histogram_of(*(torch.tensor([value]) for value in values))
    assert int(found.counts.sum()) == len(values)
    assert float(found.reach) >= max(abs(value) for value in values)


def test_growing_keeps_every_value_in_the_bin_that_covers_it() -> None:
    torch.manual_seed(0)
    values = torch.randn(5000)
    in_steps = histogram_of(values * 0.01, values, values * 50)
    at_once = Histogram(torch.zeros(BINS, dtype=torch.int64), in_steps.reach)
    for batch in (values * 0.01, values, values * 50):
        at_once = counted(at_once, sampled(batch))
    # float rounding may move a value across a border, no more
    difference = (in_steps.counts.cumsum(0) - at_once.counts.cumsum(0)).abs().max()
    assert int(difference) <= 3


def test_zero_is_a_border() -> None:
    found = histogram_of(torch.tensor([-1.0, -1e-4, 0.0, 1e-4, 1.0]))
    assert int(found.counts[:HALF].sum()) == 2
    assert int(found.counts[HALF]) == 2


def test_large_batches_are_sampled_and_still_weigh_in_full() -> None:
    found = histogram_of(torch.rand(3 * SAMPLES + 17))
    assert int(found.counts.sum()) == pytest.approx(3 * SAMPLES, rel=1e-3)


def test_merging_two_halves_is_like_seeing_all() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(4000), 7 * torch.randn(4000)
    together = merged(histogram_of(first), histogram_of(second))
    assert int(together.counts.sum()) == 8000
    values = torch.cat([first, second])
    low, high = quantiles(together, 0.01, 0.99)
    assert float(low) == pytest.approx(float(values.quantile(0.01)), abs=0.1)
    assert float(high) == pytest.approx(float(values.quantile(0.99)), abs=0.1)


def test_merging_with_nothing_changes_nothing() -> None:
    some = histogram_of(torch.randn(100))
    for result in (merged(some, empty_histogram()), merged(empty_histogram(), some)):
        assert torch.equal(result.counts, some.counts)
        assert result.reach == some.reach


def test_centers_lie_in_the_middle_of_bins() -> None:
    found = histogram_of(torch.tensor([2.0]))
    assert float(centers(found)[HALF]) == pytest.approx(1 / HALF)
    assert float(centers(found)[0]) == pytest.approx(-2 + 1 / HALF)


def test_all_zeros_are_a_histogram_too() -> None:
    found = histogram_of(torch.zeros(10), torch.zeros(10))
    assert int(found.counts[HALF]) == 20
    later = counted(grown(found, torch.tensor(1.0)), sampled(torch.tensor([1.0])))
    assert int(later.counts[HALF]) == 20
