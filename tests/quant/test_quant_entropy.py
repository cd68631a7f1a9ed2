"""The entropy observer, and merging observers of several ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from fxquant.errors import CalibrationError
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.quant.entropy import least_divergence
from fxquant.quant.histogram import counted, empty_histogram, grown, sampled
from fxquant.quant.observers import Entropy, make_observer
from fxquant.quant.ranks import reduce_across_ranks
from fxquant.quant.settle import fake_quantizes
from fxquant.quant.spec import QuantSpec
from tests.passes.core_graphs import pooled_convolution
from tests.passes.quantized_graphs import prepared

SPEC = QuantSpec("int8", observer="entropy")


def entropy_of(value: torch.Tensor, spec: QuantSpec = SPEC) -> Entropy:
    observer = make_observer(spec)
    observer(value)
    assert isinstance(observer, Entropy)
    return observer


def test_few_far_values_are_cut() -> None:
    torch.manual_seed(0)
    value = torch.randn(100_000)
    value[:10] = 60.0
    low, high = entropy_of(value).range()
    assert 2.0 < float(high) < 15.0
    assert -15.0 < float(low) < -2.0


def test_an_even_distribution_is_kept_whole() -> None:
    value = torch.linspace(-1, 1, 100_000)
    low, high = entropy_of(value).range()
    assert (float(low), float(high)) == pytest.approx((-1.0, 1.0), abs=0.02)


def test_what_is_never_negative_stays_so() -> None:
    torch.manual_seed(0)
    value = torch.randn(100_000).relu()
    value[:5] = 40.0
    low, high = entropy_of(value).range()
    assert float(low) == 0.0
    assert 2.0 < float(high) < 12.0


@pytest.mark.parametrize("value", [torch.zeros(10), torch.ones(3), torch.full((4,), -2.0)])
def test_ranges_of_few_values_are_whole(value: torch.Tensor) -> None:
    low, high = entropy_of(value).range()
    assert (float(low), float(high)) == (float(value.min()), float(value.max()))


def test_many_integers_need_no_cut() -> None:
    torch.manual_seed(0)
    value = torch.randn(1000)
    histogram = counted(grown(empty_histogram(), value.abs().max()), sampled(value))
    found = least_divergence(histogram, value.min(), value.max(), 1 << 16)
    assert found == (value.min(), value.max())


def test_a_config_takes_it() -> None:
    graph_module = prepared(pooled_convolution())
    config = QuantConfig(activations=SPEC)
    assert QuantConfig.from_yaml(config.to_yaml()) == config
    calibrate(graph_module, [torch.randn(1, 3, 8, 8)])


PLAIN = QuantConfig(equalize=False)


def parts(rank: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return [(rank + 1) * torch.randn(2, 3, 8, 8, generator=generator) for _ in range(3)]


def _calibrated(observer: str, equalize: bool = False) -> torch.fx.GraphModule:
    from fxquant.ir.state import state_of

    spec = QuantSpec("int8", observer=observer)
    graph_module = pooled_convolution()
    state_of(graph_module).config = QuantConfig(
        activations=spec, outputs=None, equalize=equalize, correct_bias=True
    )
    return prepared(graph_module)


def _rank(rank: int, folder: str, observer: str, equalize: bool) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        graph_module = _calibrated(observer)
        calibrate(graph_module, parts(rank), progress=False)
        if equalize:  # as if each rank had its own weights
            with torch.no_grad():
                graph_module.conv_weight.mul_(1 + rank)  # type: ignore[operator]
        try:
            reduce_across_ranks(graph_module)
        except CalibrationError as error:
            torch.save(str(error), f"{folder}/{rank}.pt")
            return
        found = {
            str(node.target): (module.scale, module.zero_point)
            for node, module in fake_quantizes(graph_module)
        }
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_two_ranks_agree_bit_for_bit(observer: str, tmp_path: Path) -> None:
    spawn(_rank, (str(tmp_path), observer, False), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first.keys() == second.keys()
    for name, (scale, zero_point) in first.items():
        assert torch.equal(scale, second[name][0]), name
        assert torch.equal(zero_point, second[name][1]), name
    if observer == "minmax":  # the same as one process that sees all data
        whole = calibrate(_calibrated(observer), [*parts(0), *parts(1)])
        for node, module in fake_quantizes(whole):
            assert torch.equal(module.scale, first[str(node.target)][0])


def test_ranks_with_other_weights_are_refused(tmp_path: Path) -> None:
    spawn(_rank, (str(tmp_path), "minmax", True), nprocs=2)
    for rank in range(2):
        text = torch.load(tmp_path / f"{rank}.pt")
        assert "the weights of 2 ranks are not the same" in text
        assert "equalize=False" in text


def test_one_process_changes_nothing() -> None:
    graph_module = calibrate(_calibrated("minmax"), parts(0))
    before = [module.scale.clone() for _, module in fake_quantizes(graph_module)]
    assert reduce_across_ranks(graph_module) is graph_module
    after = [module.scale for _, module in fake_quantizes(graph_module)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
