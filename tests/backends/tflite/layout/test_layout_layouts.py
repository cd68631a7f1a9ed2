"""Conversions between layouts, on tensors."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fxquant.backends.tflite.layout.layouts import (
    BYTE,
    Layout,
    below,
    beyond,
    cost,
    natural,
    shuffled,
    steps,
)
from fxquant.backends.tflite.layout.stored_constants import arranged

SHAPE = (2, 1, 12, 3)
FACTORS = ((3, 4), (2, 2, 3))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    order = tuple(draw(st.permutations(range(4))))
    sizes = draw(st.sampled_from(FACTORS))
    moved = draw(st.permutations(range(len(sizes))))
    return Layout(order, shuffled(2, sizes, moved) if draw(st.booleans()) else ())


@given(layouts(), layouts())
def test_steps_convert(source: Layout, target: Layout) -> None:
    x = torch.arange(72).reshape(SHAPE)
    value = arranged(x, source)
    for step in steps(SHAPE, source, target):
        move = value.permute if step.kind == "transpose" else value.reshape
        value = move(step.values)
    assert torch.equal(value, arranged(x, target))


@given(layouts(), st.permutations(range(4)))
def test_views_go_back_and_forth(layout: Layout, view: list[int]) -> None:
    assert beyond(below(layout, tuple(view)), tuple(view)) == layout


def test_dimensions_of_size_one_are_not_moved() -> None:
    moves = steps((4, 1, 1, 6), natural(4), Layout((0, 3, 1, 2)))
    assert [step.kind for step in moves] == ["reshape"]
    assert cost(24, moves) == 1
    assert cost(24, steps((4, 2, 6), natural(3), Layout((1, 0, 2)))) == 24 * BYTE + 1
