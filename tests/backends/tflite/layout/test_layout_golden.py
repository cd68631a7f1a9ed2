"""The pass's picture for each kind of operator: the graph before and after."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.fx import GraphModule

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.printer import format_graph
from tests.backends.tflite.layout.layout_graphs import LayoutGraph, assigned, run, whole
from tests.conftest import Golden

CASES: dict[str, Callable[[LayoutGraph], GraphModule]] = {}


def case(function: Callable[[LayoutGraph], GraphModule]) -> Callable[[LayoutGraph], GraphModule]:
    CASES[function.__name__] = function
    return function


@case
def elementwise(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 5), 4)
    y = g.call(tfl.add, g.call(tfl.relu, x, **g.out), g.plain(4, 1, 1), **g.out)
    return g.leave(g.conv(g.call(tfl.mul, y, g.plain(5), **g.out), 2))


@case
def residual(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 4), 4)
    y = g.conv(g.call(tfl.relu, x, **g.out), 4, 3)
    return g.leave(g.call(tfl.add, x, y, **g.out))


@case
def broadcast_of_computed_values(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 4), 4)
    row = g.call(tfl.mean, x, (0, 1, 2), **g.out)
    return g.leave(g.conv(g.call(tfl.mul, x, row, **g.out), 2))


@case
def concatenation(g: LayoutGraph) -> GraphModule:
    x = g.entry(1, 3, 4, 4)
    y = g.call(tfl.concatenation, [g.conv(x, 4), g.conv(x, 2)], axis=1)
    return g.leave(g.conv(y, 2))


@case
def mean_with_and_without_dimensions(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 4), 8)
    gate = g.conv(g.call(tfl.mean, x, (2, 3), keep_dims=True, **g.out), 8)
    y = g.call(tfl.mul, x, gate, **g.out)
    return g.leave(g.linear(g.call(tfl.mean, y, (2, 3), **g.out), 5))


@case
def flatten_into_linear(g: LayoutGraph) -> GraphModule:
    x = g.pool(g.conv(g.entry(1, 3, 6, 6), 4))
    flat = g.call(tfl.reshape, x, (1, -1))
    return g.leave(g.linear(g.call(tfl.relu6, flat, **g.out), 5))


@case
def linear_into_image(g: LayoutGraph) -> GraphModule:
    x = g.linear(g.entry(1, 6), 4 * 3 * 3)
    return g.leave(g.conv(g.call(tfl.reshape, x, (1, 4, 3, 3)), 2))


@case
def flatten_that_leaves(g: LayoutGraph) -> GraphModule:
    return g.leave(g.call(tfl.reshape, g.conv(g.entry(1, 3, 4, 4), 4), (1, 64)))


@case
def channel_shuffle(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 4), 6)
    groups = g.call(tfl.reshape, x, (1, 2, 3, 4, 4))
    mixed = g.call(tfl.reshape, g.transpose(groups, 0, 2, 1, 3, 4), (1, 6, 4, 4))
    return g.leave(g.conv(mixed, 2))


@case
def pad_slice_and_split(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 4), 6)
    padded = g.call(tfl.pad, x, ((0, 0), (0, 0), (1, 2), (0, 1)))
    cut = g.call(tfl.strided_slice, padded, (0, 1, 0, 0), (1, 5, 7, 5), (1, 1, 2, 1), end_mask=8)
    parts = g.call(tfl.split, cut, 1, num_splits=2)
    first = g.call(tfl.slice, g.part(parts, 0), (0, 0, 1, 0), (1, 2, 3, 5))
    return g.leave(g.conv(first, 2), g.conv(g.part(parts, 1), 2))


@case
def tokens_of_an_image(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 4), 6)
    tokens = g.transpose(g.call(tfl.reshape, x, (1, 6, 16)), 0, 2, 1)
    return g.leave(g.linear(tokens, 5))


@case
def user_permutes(g: LayoutGraph) -> GraphModule:
    x = g.conv(g.entry(1, 3, 4, 4), 4)
    inner = g.linear(g.transpose(x, 0, 2, 3, 1), 4)
    scaled = g.call(tfl.mul, g.transpose(inner, 0, 3, 1, 2), g.plain(4, 1, 1), **g.out)
    return g.leave(g.conv(g.call(tfl.add, x, scaled, **g.out), 2))


@case
def attention_scores(g: LayoutGraph) -> GraphModule:
    x = g.entry(1, 5, 4)
    keys = g.transpose(g.linear(x, 6), 0, 2, 1)
    return g.leave(g.call(tfl.batch_matmul, g.linear(x, 6), keys, **g.out))


@case
def one_transpose_for_two_readers(g: LayoutGraph) -> GraphModule:
    x = g.entry(1, 3, 4, 4)
    return g.leave(g.conv(x, 2), g.conv(x, 4))


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("name", CASES)
def test_layout_golden(name: str, quantized: bool, golden: Golden) -> None:
    before = CASES[name](LayoutGraph(quantized=quantized))
    after = assigned(before)
    text = f"{format_graph(before)}\n{format_graph(after)}"
    golden(f"{name}_int8" if quantized else name, text)
    shape = before.graph.find_nodes(op="placeholder")[0].meta["type"].shape
    x = whole(*shape, seed=5)
    for was, now in zip(run(before, x), run(after, x), strict=True):
        assert torch.equal(was, now)
