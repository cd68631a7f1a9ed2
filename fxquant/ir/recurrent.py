"""A typed view of recurrent operators: their kind, states and weights by layer and direction.

    recurrent(node)  ->  Recurrent(kind="lstm", x=%x, states=(%h0, %c0), weights=(…), …)

`weights_of` reads the flat list of parameters that the operators take; it does so for nodes as
well as for the values of a backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from torch._ops import OpOverload
from torch.fx import Node

from fxquant.ir.aten import aten, is_aten, named_arguments, overload

Kind = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
Value = TypeVar("Value")

SEQUENCES: dict[OpOverload, Kind] = {
    aten.lstm.input: "lstm",
    aten.gru.input: "gru",
    aten.rnn_tanh.input: "rnn_tanh",
    aten.rnn_relu.input: "rnn_relu",
}
"""Operators over whole sequences."""

CELLS: dict[OpOverload, Kind] = {
    aten.lstm_cell.default: "lstm",
    aten.gru_cell.default: "gru",
    aten.rnn_tanh_cell.default: "rnn_tanh",
    aten.rnn_relu_cell.default: "rnn_relu",
}
"""Operators of one step."""

GATES: dict[Kind, int] = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""How many blocks of rows the weights have: i f g o, r z n, or one."""


class Weights(NamedTuple, Generic[Value]):
    """The parameters of one layer in one direction.

    Attributes:
        x: of the input, [gates * hidden, inputs].
        h: of the state, [gates * hidden, outputs].
        x_bias, h_bias: [gates * hidden]; None where there are none.
        projection: from the hidden to the outputs, [outputs, hidden]; None where there is none.
    """

    x: Value
    h: Value
    x_bias: Value | None = None
    h_bias: Value | None = None
    projection: Value | None = None


@dataclass(frozen=True)
class Recurrent:
    """A recurrent operator.

    Attributes:
        kind: what one step computes.
        x: the input: [steps, batch, inputs], with `batch_first` [batch, steps, inputs], for a
            cell [batch, inputs].
        states: h, for an LSTM h and c: [layers * directions, batch, size], for a cell
            [batch, size].
        weights: by layer, then by direction (forward, backward).
        is_cell: whether it computes one step.
        batch_first: whether the batch is the first dimension of input and output.
        dropout: the probability between layers, while training.
        train: whether the operator drops.
    """

    kind: Kind
    x: Node
    states: tuple[Node, ...]
    weights: tuple[tuple[Weights[Node], ...], ...]
    is_cell: bool = False
    batch_first: bool = False
    dropout: float = 0.0
    train: bool = False

    @property
    def time_axis(self) -> int:
        """The dimension of input and output along which the steps lie."""
        return 1 if self.batch_first else 0


def recurrent(node: Node) -> Recurrent | None:
    """The view of a recurrent operator, None for any other node."""
    if not is_aten(node):
        return None
    named = named_arguments(node)
    states = named.get("hx")
    if overload(node) in CELLS:
        weights = Weights(named["w_ih"], named["w_hh"], named["b_ih"], named["b_hh"])
        return Recurrent(CELLS[overload(node)], named["input"], _pair(states), ((weights,),), True)
    if overload(node) not in SEQUENCES:
        return None
    return Recurrent(
        kind=SEQUENCES[overload(node)],
        x=named["input"],
        states=_pair(states),
        weights=weights_of(
            named["params"],
            has_biases=named["has_biases"],
            layers=named["num_layers"],
            directions=1 + named["bidirectional"],
        ),
        batch_first=named["batch_first"],
        dropout=named["dropout"],
        train=named["train"],
    )


def _pair(states: Any) -> tuple[Node, ...]:
    return (states,) if isinstance(states, Node) else tuple(states)


def weights_of(
    parameters: Sequence[Value], *, has_biases: bool, layers: int, directions: int
) -> tuple[tuple[Weights[Value], ...], ...]:
    """The flat list of an operator's parameters by layer and direction.

    >>> weights_of(["w", "u", "b", "c"], has_biases=True, layers=1, directions=1)
    ((Weights(x='w', h='u', x_bias='b', h_bias='c', projection=None),),)
    >>> weights_of(["w", "u", "p"], has_biases=False, layers=1, directions=1)[0][0].projection
    'p'
    """
    size = len(parameters) // (layers * directions)
    parts = [
        _weights(parameters[at : at + size], has_biases) for at in range(0, len(parameters), size)
    ]
    return tuple(tuple(parts[at : at + directions]) for at in range(0, len(parts), directions))


def _weights(part: Sequence[Value], has_biases: bool) -> Weights[Value]:
    x_bias, h_bias = (part[2], part[3]) if has_biases else (None, None)
    rest = part[4:] if has_biases else part[2:]
    return Weights(part[0], part[1], x_bias, h_bias, rest[0] if rest else None)
