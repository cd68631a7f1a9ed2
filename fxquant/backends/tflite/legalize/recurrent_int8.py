"""An LSTM of integers as one operator for each layer and direction.

quantized_lstm(x, w, u, b, c)   ->   SLICE, MUL, REVERSE_V2, QUANTIZE: states of zero
                                     UNIDIRECTIONAL_SEQUENCE_LSTM: 8 bits, a cell state of 16

As in float (`recurrent.py`) the states are written at each call by operators that read the input.
They end with ones that no delegate takes, because the kernel overwrites their results.
"""

from __future__ import annotations

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.types import Quantization
from fxquant.quant.quantized_lstm import quantized_lstm as core_operator

from .grids import float32
from .recurrent import blocks, gates
from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value
from .weights import quantized_bias

assert core_operator is not None  # its import declares the operator
GATES = 4


@legalize(torch.ops.fxquant.quantized_lstm.default, quantized=True)
def quantized_lstm(
    r: Rewriter,
    x: Value,
    weight: Value,
    recurrent: Value,
    input_bias: Value | None,
    recurrent_bias: Value | None,
    h_scale: float,
    h_zero_point: int,
    c_scale: float,
    batch_first: bool,
) -> Value:
    """UNIDIRECTIONAL_SEQUENCE_LSTM with states of zero."""
    grid = r.qtype(x)
    if r.out is None or grid is None:
        raise Unsupported("its input is not on a grid")
    outer, inner = gates(weight), gates(recurrent)
    total = _bias(r, outer[0], input_bias, recurrent_bias)
    biases = [
        quantized_bias(part, grid.scale, _known(gate), wide=False)
        for part, gate in zip(blocks(total), outer, strict=True)
    ]
    out, cell = r.out, QType("int16", float32(c_scale), 0)
    zero = _zero(r, x, grid, out, batch_first, r.shape(recurrent)[1])
    h = r.emit(tfl.reverse_v2, zero, axis=(0,))
    c = r.emit(tfl.quantize, zero, out=cell)
    y, _ = r.emit_several(
        tfl.unidirectional_sequence_lstm, x, outer, inner, biases, h, c, time_major=not batch_first
    )
    return y


def _known(block: Constant) -> Quantization:
    if block.quantization is None:
        raise Unsupported("its weights are not quantized")
    return block.quantization


def _bias(r: Rewriter, gate: Constant, *biases: Value | None) -> Constant:
    """The sum of both biases; zeros where there are none."""
    found = [bias.data for bias in biases if isinstance(bias, Constant)]
    size = GATES * gate.data.shape[0]
    return r.constant(sum(found, torch.zeros(size)), "bias")


def _zero(r: Rewriter, x: Value, grid: QType, out: QType, batch_first: bool, hidden: int) -> Value:
    """Zeros that read the input: [batch, hidden] on the grid of h."""
    batch = r.shape(x)[0 if batch_first else 1]
    one = r.reshape(r.emit(tfl.slice, x, begin=(0, 0, 0), size=(1, 1, 1)), (1, 1))
    scale = Quantization((float32(out.scale / grid.scale),), (0,), None)
    zeros = Constant("zero", torch.zeros(batch, hidden, dtype=torch.int8), scale)
    return r.emit(tfl.mul, one, zeros, out=out)
