"""The LSTM of float values and integer weights: each step's x and h are put on grids of 8 bits.

    gate = b + (sum q_x w) s_x s_w + (sum q_h u) s_h s_u        one grid a row, one scale a gate

States and gates are float. All sets of kernels compute alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .hybrid import Grids, sequence_on_grids
from .quantized import QTensor


def lstm_hybrid(
    x: Tensor,
    input_weights: Sequence[QTensor],
    recurrent_weights: Sequence[QTensor],
    biases: Sequence[Tensor],
    h: Tensor,
    c: Tensor,
    *,
    time_axis: int,
    asymmetric: bool,
) -> tuple[Tensor, Tensor]:
    """All outputs and the last c; shapes as of `lstm_int8`."""
    outputs = []
    for step in x.unbind(time_axis):
        given, state = sequence_on_grids(step, asymmetric), sequence_on_grids(h, asymmetric)
        sums = [
            bias + _product(given, w) + _product(state, u)
            for w, u, bias in zip(input_weights, recurrent_weights, biases, strict=True)
        ]
        c = torch.sigmoid(sums[1]) * c + torch.sigmoid(sums[0]) * torch.tanh(sums[2])
        h = torch.sigmoid(sums[3]) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, time_axis), c


def _product(rows: Grids, weights: QTensor) -> Tensor:
    values, scale = rows
    sums = values.to(torch.float64) @ weights.values.to(torch.float64).T
    return sums.to(torch.float32) * (scale * weights.one_scale)
