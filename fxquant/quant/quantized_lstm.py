"""An LSTM over a sequence whose states are rounded at each step, as one operator of the graph.

    y = quantized_lstm(x, w, u, b, c, h_scale, h_zero_point, c_scale, batch_first)
    y, c_n = dynamic_lstm(x, w, u, b, c, h_0, c_0, batch_first)

What it computes is what the steps written one by one compute, rounding by rounding: the state h on
an 8-bit grid, the cell state c in 16 bits, everything between in float; or h on a grid that is
found at each step, and c in float. They stand in a graph for targets that have an operator for the
whole layer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from fxquant.quant.narrow import dynamically_quantized

H_RANGE = (-128, 127)
C_RANGE = (-32768, 32767)


@torch.library.custom_op("fxquant::quantized_lstm", mutates_args=())
def quantized_lstm(
    x: Tensor,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    input_bias: Tensor | None,
    recurrent_bias: Tensor | None,
    h_scale: float,
    h_zero_point: int,
    c_scale: float,
    batch_first: bool,
) -> Tensor:
    """One layer in one direction, from states of zero.

    Args:
        x: [steps, batch, inputs]; with `batch_first` [batch, steps, inputs].
        input_weights: [4 * hidden, inputs], the gates i, f, g and o one below the other.
        recurrent_weights: [4 * hidden, hidden].
        input_bias, recurrent_bias: [4 * hidden], or None.
        h_scale, h_zero_point: the grid of h, of 8 bits.
        c_scale: the grid of c, of 16 bits.
        batch_first: whether the batch is the first dimension.

    Returns:
        h of all steps, shaped as x.
    """
    axis, hidden = int(batch_first), recurrent_weights.shape[1]
    sums = linear(x, input_weights, input_bias)
    h = x.new_zeros(1, hidden)
    c = x.new_zeros(1, hidden)
    outputs = []
    for step in sums.unbind(axis):
        gates = step + linear(h, recurrent_weights, recurrent_bias)
        i, f, g, o = gates.split(hidden, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        c = torch.fake_quantize_per_tensor_affine(c, c_scale, 0, *C_RANGE)
        h = torch.sigmoid(o) * torch.tanh(c)
        h = torch.fake_quantize_per_tensor_affine(h, h_scale, h_zero_point, *H_RANGE)
        outputs.append(h)
    return torch.stack(outputs, axis)


@quantized_lstm.register_fake
def _shape(
    x: Tensor,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    input_bias: Tensor | None,
    recurrent_bias: Tensor | None,
    h_scale: float,
    h_zero_point: int,
    c_scale: float,
    batch_first: bool,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], recurrent_weights.shape[1])


@torch.library.custom_op("fxquant::dynamic_lstm", mutates_args=())
def dynamic_lstm(
    x: Tensor,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    input_bias: Tensor | None,
    recurrent_bias: Tensor | None,
    h: Tensor,
    c: Tensor,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """One layer in one direction that puts h on an 8-bit grid of its own at each step.

    Args:
        x: [steps, batch, inputs], rounded; with `batch_first` [batch, steps, inputs].
        input_weights, recurrent_weights, input_bias, recurrent_bias: as of `quantized_lstm`.
        h, c: the first states, [batch, hidden] or [1, hidden].
        batch_first: whether the batch is the first dimension.

    Returns:
        h of all steps, shaped as x, and the last c.
    """
    axis, hidden = int(batch_first), recurrent_weights.shape[1]
    sums = linear(x, input_weights, input_bias)
    outputs = []
    for step in sums.unbind(axis):
        rounded = dynamically_quantized(h, (-1,), *H_RANGE)
        gates = step + linear(rounded, recurrent_weights, recurrent_bias)
        i, f, g, o = gates.split(hidden, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, axis), c


@dynamic_lstm.register_fake
def _shapes(
    x: Tensor,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    input_bias: Tensor | None,
    recurrent_bias: Tensor | None,
    h: Tensor,
    c: Tensor,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    hidden = recurrent_weights.shape[1]
    batch = x.shape[0 if batch_first else 1]
    return x.new_empty(*x.shape[:-1], hidden), x.new_empty(batch, hidden)
