"""The reservoir: bounded, even, the same every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from fxquant.quant import reservoir as reservoirs
from fxquant.quant.batches import BatchRunner
from fxquant.quant.reservoir import Reservoir, live_bytes
from tests.passes.core_graphs import Builder, pooled_convolution
from tests.passes.quantized_graphs import prepared


def two_inputs() -> GraphModule:
    b = Builder()
    x, y = b.input("x", torch.zeros(2, 3)), b.input("y", torch.zeros(2, 3))
    return prepared(b.finish(b("add.Tensor", b("relu", x), y)))


def filled(size: int, count: int, batch: int = 2) -> Reservoir:
    """A reservoir that has seen `count` samples whose values are their numbers."""
    kept = Reservoir(BatchRunner(two_inputs()), size)
    for start in range(0, 2 * count, batch):
        rows = torch.arange(start, start + batch).float()[:, None].expand(batch, 3)
        kept.offer((rows, -rows))
    return kept


def numbers(kept: Reservoir) -> list[int]:
    return [int(x[0, 0]) // 2 for x, _ in kept.kept]


def test_a_short_stream_is_kept_whole() -> None:
    assert numbers(filled(8, 5)) == [0, 1, 2, 3, 4]


def test_a_long_stream_is_kept_evenly_and_repeatably() -> None:
    found = numbers(filled(50, 1000))
    assert len(found) == len(set(found)) == 50
    assert 400 < sum(found) / 50 < 600
    assert found == numbers(filled(50, 1000))


def test_batches_are_taken_apart_and_inputs_stay_together() -> None:
    kept = filled(50, 1000, batch=20)
    assert numbers(kept) == numbers(filled(50, 1000))
    assert all(torch.equal(x, -y) for x, y in kept.kept)


def test_calls_hold_what_was_kept() -> None:
    kept = filled(20, 20)
    inputs = [inputs for _, inputs in kept.calls()]
    assert [x.shape[0] for x, _ in inputs] == [16, 16, 8]
    assert torch.equal(torch.cat([x for x, _ in inputs])[::2, 0], torch.arange(0.0, 40.0, 2))


def test_a_kept_sample_does_not_keep_its_batch() -> None:
    batch = torch.zeros(1000, 3)
    kept = Reservoir(BatchRunner(two_inputs()), 1)
    kept.offer((batch, batch))
    assert kept.kept[0][0].untyped_storage().nbytes() == 2 * 3 * 4


def test_the_memory_bounds_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepared(pooled_convolution())
    runner = BatchRunner(root)
    monkeypatch.setattr(reservoirs, "MEMORY", 3 * live_bytes(root))
    assert Reservoir(runner).size == 3
    monkeypatch.setattr(reservoirs, "MEMORY", 0)
    assert Reservoir(runner).size == 1


def test_live_bytes_counts_what_is_needed_at_one_time() -> None:
    b = Builder()
    value: object = b.input("x", torch.zeros(1, 100))
    for _ in range(5):
        value = b("relu", value)
    assert live_bytes(b.finish(value)) == 2 * 400  # type: ignore[arg-type]


def test_samples_without_dimensions_pass() -> None:
    b = Builder()
    x: Tensor = torch.zeros(1, 4)
    graph_module = prepared(b.finish(b("relu", b.input("x", x))))
    runner = BatchRunner(graph_module)
    assert [len(sample) for sample in runner.samples([torch.zeros(5, 4)])] == [1] * 5
