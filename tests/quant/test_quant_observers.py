"""Observers: what they find, that their state is bounded, merges and travels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fxquant.errors import CalibrationError, ConfigError
from fxquant.quant.observers import OBSERVERS, MovingAverage, Observer, make_observer, state_problem
from fxquant.quant.spec import QuantSpec

KINDS = ("minmax", "headroom", "moving_average", "percentile", "mse")


def batches(count: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(500, generator=generator) * (i + 1) - 1 for i in range(count)]


def observed(kind: str, data: list[torch.Tensor]) -> Observer:
    observer = make_observer(QuantSpec(observer=kind))
    for batch in data:
        assert observer(batch) is batch
    return observer


def test_minmax_finds_the_extremes() -> None:
    low, high = observed("minmax", batches()).range()
    values = torch.cat(batches())
    assert (low, high) == (values.min(), values.max())


def test_headroom_goes_twice_as_far() -> None:
    low, high = observed("headroom", batches()).range()
    values = torch.cat(batches())
    assert (low, high) == (2 * values.min(), 2 * values.max())


def test_moving_average_weighs_the_first_batch_fully_and_later_ones_a_little() -> None:
    observer = observed("moving_average", [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 11.0])])
    assert float(observer.range()[1]) == pytest.approx(1 + MovingAverage.momentum * 10)


def test_percentile_cuts_what_is_rare() -> None:
    data = [torch.randn(500_000, generator=torch.Generator().manual_seed(0)), torch.tensor([1e3])]
    low, high = observed("percentile", data).range()
    assert -6 < float(low) < -3 and 3 < float(high) < 6


def test_percentile_never_leaves_the_range_seen() -> None:
    low, high = observed("percentile", [torch.full((10,), 2.0)]).range()
    assert float(low) <= float(high) <= 2.0


def test_per_channel_minmax() -> None:
    observer = make_observer(QuantSpec(axis=1, symmetric=True), channels=3)
    value = torch.randn(4, 3, 5)
    observer(value)
    assert torch.equal(observer.low, value.amin((0, 2)))
    assert observer.parameters_of().scale.shape == (3,)


@pytest.mark.parametrize("kind", ["percentile", "mse"])
def test_histograms_are_per_tensor(kind: str) -> None:
    with pytest.raises(ConfigError, match="works per tensor"):
        make_observer(QuantSpec(observer=kind, axis=0), channels=4)


def test_an_unknown_observer_is_refused() -> None:
    with pytest.raises(ConfigError, match="no observer 'best'"):
        make_observer(QuantSpec(observer="best"))


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_bounded(kind: str) -> None:
    observer = make_observer(QuantSpec(observer=kind))
    shapes = {name: value.shape for name, value in observer.state_dict().items()}
    for batch in batches(20):
        observer(batch)
    assert {name: value.shape for name, value in observer.state_dict().items()} == shapes


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_does_not_keep_the_batch(kind: str) -> None:
    batch = torch.randn(100, requires_grad=True)
    observer = observed(kind, [batch])
    assert all(not value.requires_grad for value in observer.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_seen_is_an_error(kind: str) -> None:
    observer = make_observer(QuantSpec(observer=kind))
    observer(torch.empty(0))
    assert state_problem(observer) == "saw nothing"
    with pytest.raises(CalibrationError, match="saw nothing"):
        observer.parameters_of()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_batch_is_named(kind: str, bad: float) -> None:
    good = torch.randn(8)
    observer = observed(kind, [good, good, torch.tensor([1.0, bad]), torch.tensor([bad]), good])
    assert state_problem(observer) == "saw NaN or infinity in batch 2"
    with pytest.raises(CalibrationError, match="batch 2"):
        observer.parameters_of()


@pytest.mark.parametrize("kind", ["minmax", "percentile", "mse"])
def test_merged_halves_are_like_the_whole(kind: str) -> None:
    data = batches()
    whole, first, second = (observed(kind, part) for part in (data, data[:3], data[3:]))
    first.merge(second)
    scale, expected = first.parameters_of().scale, whole.parameters_of().scale
    assert float(scale) == pytest.approx(float(expected), rel=0.02)
    assert int(first.batches) == len(data)


def test_moving_averages_merge_by_their_batches() -> None:
    first = observed("moving_average", [torch.tensor([0.0, 1.0])] * 3)
    second = observed("moving_average", [torch.tensor([0.0, 5.0])])
    first.merge(second)
    assert float(first.high) == pytest.approx(2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_into_a_fresh_observer_copies(kind: str) -> None:
    fresh, full = make_observer(QuantSpec(observer=kind)), observed(kind, batches())
    fresh.merge(full)
    assert fresh.parameters_of() == full.parameters_of()


@pytest.mark.parametrize("kind", KINDS)
def test_reset_forgets(kind: str) -> None:
    observer = observed(kind, batches())
    observer.reset()
    assert not observer.seen
    fresh = make_observer(QuantSpec(observer=kind)).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in observer.state_dict().items())


RELOAD = """
import sys, torch
from fxquant.quant.observers import make_observer
from fxquant.quant.spec import QuantSpec
for kind in {kinds}:
    observer = make_observer(QuantSpec(observer=kind))
    observer.load_state_dict(torch.load(sys.argv[1])[kind])
    print(kind, *map(float, observer.parameters_of()))
"""


def test_the_state_travels_to_a_fresh_process(tmp_path: Path) -> None:
    observers = {kind: observed(kind, batches()) for kind in KINDS}
    torch.save({kind: o.state_dict() for kind, o in observers.items()}, tmp_path / "state.pt")
    code = RELOAD.format(kinds=KINDS)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "state.pt")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = [
        " ".join([k, *map(str, map(float, o.parameters_of()))]) for k, o in observers.items()
    ]
    assert done.stdout.splitlines() == expected


def test_every_observer_is_registered() -> None:
    assert set(KINDS) <= set(OBSERVERS)
