"""Batches of other sizes than the example's."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

import fxquant
from fxquant.errors import InputError
from fxquant.quant.batches import BatchRunner, rebatched
from tests.passes.core_graphs import Builder, pooled_convolution


def test_constant_sizes_grow_with_the_batch() -> None:
    graph_module = pooled_convolution()
    whole = rebatched(graph_module, Fraction(3))
    assert whole is not None
    x = torch.randn(3, 3, 8, 8)
    expected = torch.cat([graph_module(part)[0] for part in x.split(1)])
    assert torch.allclose(whole(x)[0], expected, atol=1e-5)
    assert "[1, 64]" in graph_module.code and "[3, 64]" in whole.code


def test_a_graph_that_mixes_samples_is_not_run_whole() -> None:
    b = Builder()
    x = b.input("x", torch.randn(2, 3))
    assert rebatched(b.finish(b("matmul", x, b("permute", x, [1, 0]))), Fraction(2)) is None


def test_a_graph_that_folds_the_batch_elsewhere_is_not_run_whole() -> None:
    b = Builder()
    x = b.input("x", torch.randn(2, 3))
    assert rebatched(b.finish(b("reshape", b("permute", x, [1, 0]), [6])), Fraction(2)) is None


def test_the_batch_may_stand_in_another_dimension_for_a_while() -> None:
    b = Builder()
    x = b.input("x", torch.randn(2, 12))
    parts = b("permute", b("reshape", x, [2, 3, 4]), [1, 0, 2])
    root = b.finish(b("reshape", b("permute", b("relu", parts), [1, 2, 0]), [2, 12]))
    whole = rebatched(root, Fraction(2))
    assert whole is not None
    values = torch.randn(4, 12)
    expected = torch.cat([root(part)[0] for part in values.split(2)])
    assert torch.equal(whole(values)[0], expected)


class Watcher(torch.nn.Module):
    """Remembers the shapes that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x


def watched(mixing: bool) -> tuple[torch.fx.GraphModule, Watcher]:
    b = Builder()
    b.root.add_module("watcher", Watcher())
    x = b.input("x", torch.randn(2, 3))
    y = b.graph.call_module("watcher", (x,))
    y.meta["val"] = x.meta["val"]
    result = b("matmul", y, b("permute", y, [1, 0])) if mixing else b("relu", y)
    graph_module = b.finish(result)
    watcher = graph_module.watcher
    assert isinstance(watcher, Watcher)
    return graph_module, watcher


@pytest.mark.parametrize("size", [2, 4, 5, 1])
def test_every_sample_runs(size: int) -> None:
    x = torch.arange(3.0 * size).reshape(size, 3)
    for mixing in (False, True):
        graph_module, watcher = watched(mixing)
        BatchRunner(graph_module).run(x, 0)
        seen = torch.cat(watcher.seen)
        assert {tuple(row) for row in seen.tolist()} == {tuple(row) for row in x.tolist()}
        if mixing:
            assert all(part.shape == (2, 3) for part in watcher.seen)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.randn(1, 3, 8, 8), torch.tensor([1])), "batch 7 holds 2 tensors"),
        (torch.randn(1, 3, 9, 8), r"input x has shape \[1, 3, 9, 8\], the model takes"),
        (torch.randn(3, 8, 8), r"input x has shape \[3, 8, 8\]"),
        (torch.randn(0, 3, 8, 8), r"input x has shape \[0, 3, 8, 8\]"),
        (torch.randn(1, 3, 8, 8).double(), "input x has dtype torch.float64"),
        ("picture.png", "input x is a str, not a tensor"),
    ],
)
def test_what_does_not_fit_is_said(batch: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchRunner(pooled_convolution()).run(batch, 7)


def test_inputs_must_agree_in_size() -> None:
    b = Builder()
    x, y = b.input("x", torch.randn(1, 3)), b.input("y", torch.randn(1, 3))
    runner = BatchRunner(b.finish(b("add.Tensor", x, y)))
    with pytest.raises(InputError, match="the inputs differ in batch size"):
        runner.run((torch.randn(2, 3), torch.randn(3, 3)), 0)


def test_a_graph_that_writes_a_constant_is_run_in_slices() -> None:
    class Zeroed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y[:, 1:3] = torch.zeros(1, 2, 4)
            return y

    prepared = fxquant.prepare(Zeroed(), (torch.randn(1, 4, 4),))
    fxquant.calibrate(prepared, [torch.randn(3, 4, 4)], progress=False)
    assert fxquant.convert(prepared)(torch.ones(1, 4, 4)).shape == (1, 4, 4)
