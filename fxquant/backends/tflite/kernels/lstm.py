"""The integer LSTM: 8-bit input, output and weights, a 16-bit cell state; all kernels alike.

    gate = clamp16(clamp16(W x + b) + U h), in steps of 2**-12      each product rounded apart
    i f o = sigmoid, g = tanh, in steps of 2**-15
    c' = clamp16(f c / 2**15 + i g / 2**(30 + p))            2**p is the step of c, p = -15 … -9
    h' = o * tanh(c'), rescaled to the grid of h

Measured of LiteRT: the three sets of kernels give the same bytes, scales are read per gate, and a
step of c outside 2**-15 … 2**-9 gives wrong values without a word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fxquant.errors import InvalidGraph

from .fixed_curves import look_up, sigmoid_table, tanh_table
from .fixed_point import divide_by_power, multiplier, scale_twice
from .quantized import QTensor
from .requantize import float32

GATE_STEP = 2.0**-12
CELL_EXPONENTS = range(-15, -8)
"""Of the cell state's step, a power of two."""


def cell_exponent(scale: float) -> int:
    """The exponent of the cell state's scale.

    >>> cell_exponent(2.0**-12)
    -12

    Raises:
        InvalidGraph: the kernel computes nothing right with this scale.
    """
    fraction, exponent = math.frexp(scale)
    if fraction != 0.5 or exponent - 1 not in CELL_EXPONENTS:
        what = f"an integer LSTM cannot have a cell state in steps of {scale:g}"
        raise InvalidGraph(what, fix="use a power of two from 2**-15 to 2**-9")
    return exponent - 1


def lstm_int8(
    x: QTensor,
    input_weights: Sequence[QTensor],
    recurrent_weights: Sequence[QTensor],
    biases: Sequence[QTensor],
    h: QTensor,
    c: QTensor,
    *,
    time_axis: int,
) -> tuple[QTensor, QTensor]:
    """All outputs, on the grid of h, and the last c.

    Args:
        x: [steps, batch, inputs], or with `time_axis` 1 [batch, steps, inputs].
        input_weights, recurrent_weights, biases: of the gates i, f, g and o.
        h: [batch, hidden]; c: the same as int16 with a power of two as scale.
        time_axis: the dimension along which the steps lie.
    """
    power = cell_exponent(c.one_scale)
    sums = [
        _int16(_product(x.centered(), w, x.one_scale, b.values))
        for w, b in zip(input_weights, biases, strict=True)
    ]
    curves = [tanh_table(3) if gate == 2 else sigmoid_table() for gate in range(4)]
    bend, by = tanh_table(15 + power), multiplier(_output_factor(h.one_scale))
    hidden, cell = h.values.to(torch.int64), c.values.to(torch.int64)
    outputs = []
    for step in range(x.shape[time_axis]):
        real = hidden - h.offset
        gates = [
            look_up(
                curve, _int16(total.select(time_axis, step) + _product(real, u, h.one_scale, None))
            )
            for total, u, curve in zip(sums, recurrent_weights, curves, strict=True)
        ]
        i, f, g, o = gates
        cell = _int16(divide_by_power(f * cell, 15) + divide_by_power(i * g, 30 + power))
        hidden = (scale_twice(o * look_up(bend, cell), by) + h.offset).clamp(-128, 127)
        outputs.append(hidden)
    y = torch.stack(outputs, time_axis).to(torch.int8)
    return h.with_values(y), c.with_values(cell.to(torch.int16))


def _int16(x: Tensor) -> Tensor:
    return x.clamp(-(1 << 15), (1 << 15) - 1)


def _product(x: Tensor, weight: QTensor, scale: float, bias: Tensor | None) -> Tensor:
    """x times the transposed weights, plus the bias, in steps of the gates."""
    sums = x.to(torch.float64) @ weight.values.to(torch.float64).T  # exact: below 2**53
    total = sums.to(torch.int64)
    if bias is not None:
        total = total + bias.to(torch.int64)
    factor = float32(weight.one_scale) * float32(scale) / float32(GATE_STEP)
    return scale_twice(total, multiplier(factor.to(torch.float64)))


def _output_factor(scale: float) -> float:
    """From o * tanh(c), in steps of 2**-30, to the grid of h."""
    return float(float32(2.0**-15 / scale * 2.0**-15))
