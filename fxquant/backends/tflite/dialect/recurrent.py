"""Recurrent layers over whole sequences, one operator each, with states as operands and results.

    %y, %c_n = unidirectional_sequence_lstm(%x, [@i,@f,@g,@o], …, %h, %c)

Of quantized values the integer kernel's own arithmetic is computed (`kernels/lstm.py`).

In the file the states are *variable* tensors: the kernel reads them, overwrites them, and finds
them again at the next call. An operator that writes such a tensor before the layer gives each call
the state it is meant to begin with, so that here states are plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..kernels.hybrid_lstm import lstm_hybrid
from ..kernels.lstm import lstm_int8
from .values import QTensor, Value, operator


@operator()
def unidirectional_sequence_lstm(
    x: Value,
    input_weights: Sequence[Any],
    recurrent_weights: Sequence[Any],
    biases: Sequence[Any],
    h: Value,
    c: Value,
    *,
    cell_to_input: None = None,
    cell_to_forget: None = None,
    cell_to_output: None = None,
    projection: None = None,
    projection_bias: None = None,
    fused_activation_function: str = "TANH",
    cell_clip: float = 0.0,
    proj_clip: float = 0.0,
    time_major: bool = True,
    asymmetric_quantize_inputs: bool = False,
) -> list[Value]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM: all outputs and the last c; four weights, for i, f, g and o."""
    if isinstance(x, QTensor):
        assert isinstance(h, QTensor) and isinstance(c, QTensor)
        axis = 0 if time_major else 1
        parts = input_weights, recurrent_weights, biases
        return list(lstm_int8(x, *parts, h, c, time_axis=axis))
    assert isinstance(h, Tensor) and isinstance(c, Tensor)
    if isinstance(input_weights[0], QTensor):
        parts = input_weights, recurrent_weights, biases
        axis = 0 if time_major else 1
        asymmetric = asymmetric_quantize_inputs
        return list(lstm_hybrid(x, *parts, h, c, time_axis=axis, asymmetric=asymmetric))
    bias = torch.cat(list(biases))
    parameters = [
        torch.cat(list(input_weights)),
        torch.cat(list(recurrent_weights)),
        bias,
        torch.zeros_like(bias),
    ]
    states = [h.unsqueeze(0), c.unsqueeze(0)]
    y, _, last = torch.lstm(x, states, parameters, True, 1, 0.0, False, False, not time_major)
    return [y, last.squeeze(0)]


@operator()
def unidirectional_sequence_rnn(
    x: Tensor,
    weights: Tensor,
    recurrent_weights: Tensor,
    bias: Tensor,
    h: Tensor,
    *,
    fused_activation_function: str = "TANH",
    time_major: bool = True,
) -> Tensor:
    """UNIDIRECTIONAL_SEQUENCE_RNN: all outputs; the activation is TANH or RELU."""
    layer = torch.rnn_relu if fused_activation_function == "RELU" else torch.rnn_tanh
    parameters = [weights, recurrent_weights, bias, torch.zeros_like(bias)]
    state = h.unsqueeze(0)
    found: Tensor
    found, _ = layer(x, state, parameters, True, 1, 0.0, False, False, not time_major)
    return found
