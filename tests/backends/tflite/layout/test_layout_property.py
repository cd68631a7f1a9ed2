"""Random graphs: the same results to the bit, and never more transposed bytes than before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import GraphModule, Node

from fxquant.backends.tflite import dialect as tfl
from tests.backends.tflite.layout.layout_graphs import (
    LayoutGraph,
    assigned,
    run,
    transposed_bytes,
    whole,
)

Choose = Callable[[int], int]
Grow = Callable[[LayoutGraph, Node, Choose], Node]


def _conv(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    return g.conv(x, (2, 4, 6)[choose(3)], (1, 3)[choose(2)])


def _permute(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    perm = list(range(len(g.shape(x))))
    for place in range(len(perm) - 1):
        other = place + choose(len(perm) - place)
        perm[place], perm[other] = perm[other], perm[place]
    return g.transpose(x, *perm)


def _regroup(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    shape = list(g.shape(x))
    place = choose(len(shape))
    if len(shape) > 3 and choose(2):
        place = max(place, 1)
        shape[place - 1 : place + 1] = [shape[place - 1] * shape[place]]
    elif len(shape) < 6:
        half = 2 if shape[place] % 2 == 0 else 1
        shape[place : place + 1] = [half, shape[place] // half]
    return g.call(tfl.reshape, x, tuple(shape))


def _reduce(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    rank = len(g.shape(x))
    axes = (choose(rank),) if choose(2) or rank < 3 else (rank - 2, rank - 1)
    return g.call(tfl.reduce_max, x, axes, keep_dims=rank < 3 or bool(choose(2)))


def _constant(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    shape = tuple(size if choose(2) else 1 for size in g.shape(x))
    y = g.call(tfl.add, x, g.plain(*shape[choose(len(shape)) :]), **g.out)
    return g.call(tfl.relu6, y, **g.out)


def _slice(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    begin = tuple(choose(2) if size > 2 else 0 for size in g.shape(x))
    size = tuple(size - start for size, start in zip(g.shape(x), begin, strict=True))
    return g.call(tfl.slice, x, begin, size)


def _pad(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    return g.call(tfl.pad, x, tuple((choose(2), choose(2)) for _ in g.shape(x)))


def _last(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    return g.linear(x, (3, 4)[choose(2)])


def _twice(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    axis = choose(len(g.shape(x)))
    return g.call(tfl.concatenation, [x, g.call(tfl.relu, x, **g.out)], axis=axis)


def _flat(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    flat = g.call(tfl.reshape, x, (g.shape(x)[0], -1))
    return g.linear(g.call(tfl.relu, flat, **g.out), 6)


def _image(g: LayoutGraph, x: Node, choose: Choose) -> Node:
    features = g.call(tfl.reshape, x, (1, -1))
    return g.call(tfl.reshape, g.linear(features, 16), (1, 4, 2, 2))


ANY: list[Grow] = [_permute, _regroup, _reduce, _constant, _slice, _pad, _last, _twice, _flat]
GROW: list[Grow] = [*ANY, _image, _conv, _conv, _conv]


def _random_graph(data: st.DataObject, quantized: bool) -> GraphModule:
    def choose(count: int) -> int:
        return data.draw(st.integers(0, count - 1)) if count > 1 else 0

    g = LayoutGraph(quantized=quantized)
    values = [g.entry(1, 3, 4, 4)]
    for _ in range(data.draw(st.integers(2, 9))):
        x = values[-1 - choose(min(3, len(values)))]
        grow = GROW[choose(len(GROW))]
        if grow is _conv and len(g.shape(x)) != 4:
            grow = _permute
        if torch.Size(g.shape(x)).numel() > 2000 and grow in (_twice, _pad):
            grow = _reduce
        values.append(grow(g, x, choose))
        others = [y for y in values[:-1] if g.shape(y) == g.shape(values[-1])]
        if others and choose(2):
            values.append(g.call(tfl.maximum, values[-1], others[choose(len(others))]))
    return g.leave(*values[-1 - choose(2) :])


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_graphs_stay_equal(data: st.DataObject, quantized: bool) -> None:
    before = _random_graph(data, quantized)
    x = whole(1, 3, 4, 4, seed=5)
    want = run(before, x)
    after = assigned(before)
    for was, now in zip(want, run(after, x), strict=True):
        assert torch.equal(was, now)
    assert transposed_bytes(after) <= transposed_bytes(before)
    again = assigned(after)
    assert transposed_bytes(again) <= transposed_bytes(after)
    last = assigned(before, io_layout="nhwc")
    for was, now in zip(want, run(last, x), strict=True):
        assert torch.equal(was, now)
