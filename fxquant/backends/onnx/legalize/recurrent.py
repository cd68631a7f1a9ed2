"""Rules of recurrent layers: one operator a layer, both directions in it.

lstm(x, (h, c), weights of two layers)   ->   LSTM, Transpose, Reshape, LSTM, …
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxquant.backends.lowering.constants import Constant, Value
from fxquant.backends.onnx.dialect import movement
from fxquant.backends.onnx.dialect import recurrent as ops
from fxquant.ir.aten import aten
from fxquant.ir.recurrent import Weights, weights_of

from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .shapes import sliced

Layer = Sequence[Weights[Value]]


@legalize(aten.lstm.input)
def lstm(r: Rewriter, x: Value, states: Sequence[Value], *rest: Any) -> tuple[Value, ...]:
    """LSTM."""
    return _sequence(r, ops.lstm, "lstm", x, states, *rest)


@legalize(aten.gru.input)
def gru(r: Rewriter, x: Value, state: Value, *rest: Any) -> tuple[Value, ...]:
    """GRU in the form that multiplies before it resets."""
    return _sequence(r, ops.gru, "gru", x, [state], *rest, linear_before_reset=1)


@legalize(aten.rnn_tanh.input)
def rnn_tanh(r: Rewriter, x: Value, state: Value, *rest: Any) -> tuple[Value, ...]:
    """RNN."""
    return _rnn(r, x, state, *rest, activation="Tanh")


@legalize(aten.rnn_relu.input)
def rnn_relu(r: Rewriter, x: Value, state: Value, *rest: Any) -> tuple[Value, ...]:
    """RNN with Relu."""
    return _rnn(r, x, state, *rest, activation="Relu")


def _rnn(r: Rewriter, x: Value, state: Value, *rest: Any, activation: str) -> tuple[Value, ...]:
    bidirectional = rest[5]
    activations = (activation,) * (1 + bidirectional)
    return _sequence(r, ops.rnn, "rnn", x, [state], *rest, activations=activations)


def _sequence(
    r: Rewriter,
    function: Callable[..., Any],
    kind: str,
    x: Value,
    states: Sequence[Value],
    params: Sequence[Value],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    **options: Any,
) -> tuple[Value, ...]:
    """All layers: the outputs of the last one, and the last states of all."""
    if train and dropout:
        raise Unsupported("dropout between layers, which is on while training")
    found = weights_of(params, has_biases=has_biases, layers=layers, directions=1 + bidirectional)
    if bidirectional:
        options["direction"] = "bidirectional"
    if batch_first:
        x = r.transpose(x, (1, 0, 2))
    ends: list[tuple[Value, ...]] = []
    for number, layer in enumerate(found):
        first = [_state(r, state, number, len(layer)) for state in states]
        operands = _weights(r, layer, kind, number)
        hidden = r.shape(operands[1])[-1]
        y, *last = r.emit_several(
            function, x, *operands, None, *first, hidden_size=hidden, **options
        )
        ends.append(tuple(last))
        x = _side_by_side(r, y)
    if batch_first:
        x = r.transpose(x, (1, 0, 2))
    return x, *(_joined(r, list(each)) for each in zip(*ends, strict=True))


def _weights(
    r: Rewriter, layer: Layer, kind: str, number: int
) -> tuple[Value, Value, Value | None]:
    """w, r and b of one layer: a block for each direction, gates in the standard's order."""
    order = ops.GATES[kind]

    def stacked(name: str, parts: Callable[[Weights[Value]], Sequence[Value | None]]) -> Constant:
        rows = [
            torch.cat([ops.reordered(_data(part), order) for part in parts(side)]) for side in layer
        ]
        return r.constant(torch.stack(rows), f"{name}_l{number}")

    biased = layer[0].x_bias is not None
    return (
        stacked("w", lambda side: [side.x]),
        stacked("r", lambda side: [side.h]),
        stacked("b", lambda side: [side.x_bias, side.h_bias]) if biased else None,
    )


def _data(value: Value | None) -> torch.Tensor:
    if not isinstance(value, Constant) or value.quantization is not None:
        raise Unsupported("weights that are computed")
    return value.data


def _state(r: Rewriter, state: Value, number: int, directions: int) -> Value | None:
    """What a layer starts with; None for zeros."""
    if isinstance(state, Constant):
        part = state.slice(0, number * directions, directions)
        return part if bool(part.data.any()) else None
    if r.shape(state)[0] == directions:
        return state
    return sliced(r, state, 0, number * directions, (number + 1) * directions)


def _side_by_side(r: Rewriter, y: Value) -> Value:
    """[steps, directions, batch, hidden] as [steps, batch, directions * hidden]."""
    steps, directions, batch, hidden = r.shape(y)
    if directions == 1:
        return r.emit(movement.squeeze, y, (1,))
    return r.reshape(r.transpose(y, (0, 2, 1, 3)), (steps, batch, directions * hidden))


def _joined(r: Rewriter, parts: list[Value]) -> Value:
    return parts[0] if len(parts) == 1 else r.emit(movement.concat, parts, axis=0)
