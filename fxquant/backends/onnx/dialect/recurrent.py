"""Recurrent layers over whole sequences: gates in the order of the standard, not of torch.

LSTM   rows i o f c, torch has i f g o
GRU    rows z r h, torch has r z n; torch's form is that of `linear_before_reset`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .operator import operator

GATES: dict[str, tuple[int, ...]] = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""The place that each of the file's blocks of rows has in torch's weights."""

Results = tuple[Tensor, ...]


def reordered(weights: Tensor, order: Sequence[int]) -> Tensor:
    """Blocks of rows in another order.

    >>> reordered(torch.tensor([0, 1, 2, 3]), GATES["lstm"])
    tensor([0, 3, 1, 2])
    """
    blocks = weights.chunk(len(order), 0)
    return torch.cat([blocks[place] for place in order])


def _run(
    kind: str,
    function: Any,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    states: Sequence[Tensor | None],
) -> Results:
    """torch's own layer on the file's weights; y is [steps, directions, batch, hidden]."""
    directions, hidden = w.shape[0], r.shape[2]
    inverse = [GATES[kind].index(place) for place in range(len(GATES[kind]))]
    parameters: list[Tensor] = []
    for side in range(directions):
        biases = () if b is None else b[side].chunk(2)
        parameters += [reordered(part, inverse) for part in (w[side], r[side], *biases)]
    zeros = x.new_zeros(directions, x.shape[1], hidden)
    given = [zeros if state is None else state for state in states]
    hx = given if len(given) > 1 else given[0]
    y, *last = function(x, hx, parameters, b is not None, 1, 0.0, False, directions == 2, False)
    apart = y.unflatten(2, (directions, hidden)).transpose(1, 2)
    return apart, *last


@operator("LSTM")
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    *,
    hidden_size: int,
    direction: str = "forward",
) -> Results:
    """y [steps, directions, batch, hidden], the last h and c [directions, batch, hidden]."""
    return _run("lstm", torch.lstm, x, w, r, b, (initial_h, initial_c))


@operator("GRU")
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    hidden_size: int,
    direction: str = "forward",
    linear_before_reset: int = 0,
) -> Results:
    """y and the last h; only the form that multiplies before it resets."""
    assert linear_before_reset
    return _run("gru", torch.gru, x, w, r, b, (initial_h,))


@operator("RNN")
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    hidden_size: int,
    direction: str = "forward",
    activations: tuple[str, ...] = ("Tanh", "Tanh"),
) -> Results:
    """y and the last h; one activation for each direction."""
    function = torch.rnn_relu if activations[0] == "Relu" else torch.rnn_tanh
    return _run("rnn", function, x, w, r, b, (initial_h,))
