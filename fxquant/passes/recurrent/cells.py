"""One step of each kind of recurrent layer, from what the input gives and the state before.

    LSTM   i f g o = x + U h             c' = f * c + i * g           h' = o * tanh(c')
    GRU    r z = x + U h, n = tanh(x_n + r * U_n h)                   h' = n + z * (h - n)
    RNN    h' = tanh(x + U h), or relu

The weights that read the input stand outside: they are one product for all steps. Values that mean
the same at every step name one grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch._ops import OpOverload
from torch.fx import Node

from fxquant.ir.aten import aten
from fxquant.ir.recurrent import Kind, Weights
from fxquant.passes.recurrent.writer import Writer
from fxquant.quant.grouping import GRID

States = tuple[Node, ...]


@dataclass(frozen=True)
class Step:
    """Writes one step.

    Attributes:
        writer: makes the nodes.
        weights: of this layer and direction.
        prefix, suffix: of names: the layer and the number of the step.
        x: what the input gives, already multiplied with its weights, in the blocks of `BLOCKS`.
        states: h, for an LSTM h and c.
    """

    writer: Writer
    weights: Weights[Node]
    prefix: str
    suffix: str
    x: tuple[Node, ...]
    states: States

    def write(self, target: OpOverload, *args: Any, name: str) -> Node:
        """One operator of the step."""
        called = f"{self.prefix}{name}{self.suffix}"
        grid = grid_name(self.weights, name)
        return self.writer(target, *args, name=called, grid=grid, part=name)

    def of_state(self) -> Node:
        """The state times its weights."""
        u, bias = self.weights.h, self.weights.h_bias
        return self.write(aten.linear.default, self.states[0], u, bias, name="u")

    def split(self, value: Node, sizes: list[int], name: str) -> list[Node]:
        """Blocks of the last dimension."""
        whole = self.write(aten.split_with_sizes.default, value, sizes, -1, name=name)
        return self.writer.parts(whole, f"{self.prefix}{name}{self.suffix}")


def holds_cell_state(node: Node) -> bool:
    """Whether a node is an LSTM's cell state, or one of the two products that it is the sum of.

    For rules: `Rule(callable="fxquant.passes.recurrent.cells:holds_cell_state", …)`.
    """
    grid = str(node.meta.get(GRID, ""))
    return node.target in CELL_STATE and grid.rpartition(":")[2] in CELL_STATE[node.target]


CELL_STATE: dict[Any, tuple[str, ...]] = {
    aten.add.Tensor: ("c",),
    aten.mul.Tensor: ("kept", "new"),
}


def grid_name(weights: Weights[Node], name: str) -> str:
    """The grid of a value: one for all steps that use the same weights."""
    return f"{weights.h.target}:{name}"


def lstm(step: Step) -> States:
    """The new h and c."""
    hidden = step.states[1].meta["val"].shape[-1]
    sums = step.write(aten.add.Tensor, step.x[0], step.of_state(), name="gates")
    i, f, g, o = step.split(sums, [hidden] * 4, "split")
    i = step.write(aten.sigmoid.default, i, name="i")
    f = step.write(aten.sigmoid.default, f, name="f")
    g = step.write(aten.tanh.default, g, name="g")
    o = step.write(aten.sigmoid.default, o, name="o")
    kept = step.write(aten.mul.Tensor, f, step.states[1], name="kept")
    new = step.write(aten.mul.Tensor, i, g, name="new")
    c = step.write(aten.add.Tensor, kept, new, name="c")
    bent = step.write(aten.tanh.default, c, name="bent")
    if step.weights.projection is None:
        return step.write(aten.mul.Tensor, o, bent, name="h"), c
    wide = step.write(aten.mul.Tensor, o, bent, name="wide")
    return step.write(aten.linear.default, wide, step.weights.projection, name="h"), c


def gru(step: Step) -> States:
    """The new h."""
    (h,) = step.states
    hidden = h.meta["val"].shape[-1]
    x_gates, x_n = step.x
    h_gates, h_n = step.split(step.of_state(), [2 * hidden, hidden], "u_split")
    sums = step.write(aten.add.Tensor, x_gates, h_gates, name="gates")
    gates = step.write(aten.sigmoid.default, sums, name="rz")
    r, z = step.split(gates, [hidden, hidden], "split")
    reset = step.write(aten.mul.Tensor, r, h_n, name="reset")
    n = step.write(aten.add.Tensor, x_n, reset, name="sum")
    n = step.write(aten.tanh.default, n, name="n")
    apart = step.write(aten.sub.Tensor, h, n, name="apart")
    kept = step.write(aten.mul.Tensor, z, apart, name="kept")
    return (step.write(aten.add.Tensor, n, kept, name="h"),)


def _rnn(activation: OpOverload) -> Callable[[Step], States]:
    def rnn(step: Step) -> States:
        sums = step.write(aten.add.Tensor, step.x[0], step.of_state(), name="gates")
        return (step.write(activation, sums, name="h"),)

    return rnn


STEPS: dict[Kind, Callable[[Step], States]] = {
    "lstm": lstm,
    "gru": gru,
    "rnn_tanh": _rnn(aten.tanh.default),
    "rnn_relu": _rnn(aten.relu.default),
}
"""What one step of each kind is."""

BLOCKS: dict[Kind, tuple[int, ...]] = {"gru": (2, 1)}
"""Blocks of gates that a step reads apart from each other, by kind; one where none are named."""
