"""Recurrent layers as one operator for each layer and direction.

lstm(x, (h, c), weights of both directions)   ->   UNIDIRECTIONAL_SEQUENCE_LSTM(x, h, c)
                                                    REVERSE_V2, the same backwards, REVERSE_V2
                                                    CONCATENATION

LiteRT's operator keeps its state from call to call. Each call begins anew all the same, because
operators write the state into its variable tensors first. They read the input: what depends on
constants alone LiteRT computes once, not at each call. The last c is read from its variable tensor
together with the last output, so that no delegate can take the reading forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten
from fxquant.ir.recurrent import Weights, weights_of
from fxquant.ir.types import Quantization
from fxquant.quant.quantized_lstm import dynamic_lstm as core_operator

from .registry import legalize
from .rewriter import Rewriter, Unsupported
from .values import Constant, Value

Ends = list[list[Value]]
assert core_operator is not None  # its import declares the operator


@legalize(aten.lstm.input)
def lstm(r: Rewriter, x: Value, states: Sequence[Value], *rest: Any) -> tuple[Value, ...]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM."""
    return _sequence(r, _lstm, x, states, *rest)


@legalize(torch.ops.fxquant.dynamic_lstm.default)
def dynamic_lstm(
    r: Rewriter,
    x: Value,
    weight: Value,
    recurrent: Value,
    input_bias: Value | None,
    recurrent_bias: Value | None,
    h: Value,
    c: Value,
    batch_first: bool,
) -> tuple[Value, Value]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM of float values, with weights of integers."""
    weights = Weights(weight, recurrent, input_bias, recurrent_bias)
    shape = (1, r.shape(x)[0 if batch_first else 1], r.shape(recurrent)[1])
    zero = _zero(r, x)
    wide = (r.reshape(r.broadcast(state, shape[1:]), shape) for state in (h, c))
    begun = [_begun(r, zero, state, 0) for state in wide]
    y, (_, last) = _lstm(_Layer(r, x, weights, begun, not batch_first))
    return y, last


@legalize(aten.rnn_tanh.input)
def rnn_tanh(r: Rewriter, x: Value, state: Value, *rest: Any) -> tuple[Value, ...]:
    """UNIDIRECTIONAL_SEQUENCE_RNN."""
    return _sequence(r, _rnn("TANH"), x, [state], *rest)


@legalize(aten.rnn_relu.input)
def rnn_relu(r: Rewriter, x: Value, state: Value, *rest: Any) -> tuple[Value, ...]:
    """UNIDIRECTIONAL_SEQUENCE_RNN with RELU."""
    return _sequence(r, _rnn("RELU"), x, [state], *rest)


@dataclass(frozen=True)
class _Layer:
    """One layer in one direction: what its operator reads."""

    r: Rewriter
    x: Value
    weights: Weights[Value]
    states: list[Value]
    time_major: bool

    def last_step(self, y: Value) -> Value:
        """The last output, [batch, hidden]."""
        axis = 0 if self.time_major else 1
        shape = self.r.shape(y)
        part = self.r.slice(y, axis, shape[axis] - 1, 1)
        return self.r.reshape(part, (shape[1 - axis], shape[2]))


Function = Callable[[_Layer], tuple[Value, list[Value]]]


def _lstm(layer: _Layer) -> tuple[Value, list[Value]]:
    """All outputs; the last h and c."""
    r, weights = layer.r, layer.weights
    y, c = r.emit_several(
        tfl.unidirectional_sequence_lstm,
        layer.x,
        gates(weights.x),
        gates(weights.h),
        blocks(_bias(r, weights)),
        *layer.states,
        time_major=layer.time_major,
        asymmetric_quantize_inputs=r.is_quantized(weights.x),
    )
    h = layer.last_step(y)
    both = r.emit(tfl.pack, [h, c], axis=0)
    return y, [h, r.reshape(r.slice(both, 0, 1, 1), r.shape(h))]


def _rnn(activation: str) -> Function:
    def rnn(layer: _Layer) -> tuple[Value, list[Value]]:
        r, weights = layer.r, layer.weights
        y = r.emit(
            tfl.unidirectional_sequence_rnn,
            layer.x,
            weights.x,
            weights.h,
            _bias(r, weights),
            *layer.states,
            fused_activation_function=activation,
            time_major=layer.time_major,
        )
        return y, [layer.last_step(y)]

    return rnn


def blocks(value: Constant) -> list[Constant]:
    """The four blocks of rows, one a gate."""
    size = value.data.shape[0] // 4
    return [value.slice(0, start, size) for start in range(0, 4 * size, size)]


def gates(value: Value) -> list[Constant]:
    """The weights of the gates, each with one scale where they are integers."""
    if not isinstance(value, Constant):
        raise Unsupported("its weights are computed")
    return [_with_one_scale(block) for block in blocks(value)]


def _with_one_scale(block: Constant) -> Constant:
    kind = block.quantization
    if kind is None:
        return block
    if len(set(kind.scale)) > 1:
        raise Unsupported("its weights have several scales in one gate")
    return Constant(block.name, block.data, Quantization(kind.scale[:1], kind.zero_point[:1], None))


def _bias(r: Rewriter, weights: Weights[Value]) -> Constant:
    """The sum of both biases; zeros where there are none."""
    assert isinstance(weights.x, Constant)
    if weights.x_bias is None or weights.h_bias is None:
        return r.constant(torch.zeros(weights.x.data.shape[0]), "bias")
    assert isinstance(weights.x_bias, Constant) and isinstance(weights.h_bias, Constant)
    return r.constant(weights.x_bias.data + weights.h_bias.data, "bias")


def _sequence(
    r: Rewriter,
    function: Function,
    x: Value,
    states: Sequence[Value],
    params: Sequence[Value],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """All layers: the outputs of the last one, and the last states of all."""
    found = weights_of(params, has_biases=has_biases, layers=layers, directions=1 + bidirectional)
    if not all(_is_plain(weights) for layer in found for weights in layer):
        raise Unsupported("weights that are computed or projected; unroll the layer")
    axis, zero = 1 if batch_first else 0, _zero(r, x)
    ends: Ends = []
    for number, layer in enumerate(found):
        outputs = []
        for side, weights in enumerate(layer):
            index = number * len(layer) + side
            begun = [_begun(r, zero, state, index) for state in states]
            source = r.emit(tfl.reverse_v2, x, axis=(axis,)) if side else x
            y, last = function(_Layer(r, source, weights, begun, not batch_first))
            outputs.append(r.emit(tfl.reverse_v2, y, axis=(axis,)) if side else y)
            ends.append(last)
        x = outputs[0] if len(outputs) == 1 else r.emit(tfl.concatenation, outputs, axis=2)
    return x, *(_joined(r, list(each)) for each in zip(*ends, strict=True))


def _is_plain(weights: Weights[Value]) -> bool:
    values = [value for value in weights if value is not None]
    constant = all(isinstance(v, Constant) and v.quantization is None for v in values)
    return constant and weights.projection is None


def _begun(r: Rewriter, zero: Value, state: Value, index: int) -> Value:
    """A value that is written anew at each call and that nothing else reads."""
    _, *shape = r.shape(state)
    part = r.reshape(r.slice(state, 0, index, 1), shape)
    if not isinstance(part, Constant):
        return r.emit(tfl.tile, part, multiples=(1, 1))
    zeros = r.emit(tfl.tile, zero, multiples=tuple(shape))
    if not bool(part.data.any()):
        return zeros
    return r.emit(tfl.tile, r.emit(tfl.add, zeros, part), multiples=(1, 1))


def _zero(r: Rewriter, x: Value) -> Value:
    """A zero, [1, 1], that reads the input, whatever that is: no number is less than itself."""
    rank = len(r.shape(x))
    one = r.reshape(r.emit(tfl.slice, x, begin=(0,) * rank, size=(1,) * rank), (1, 1))
    return r.cast(r.emit(tfl.less, one, one), torch.float32)


def _joined(r: Rewriter, parts: list[Value]) -> Value:
    """The last states of all layers and directions, [layers * directions, batch, hidden]."""
    wide = [r.reshape(part, (1, *r.shape(part))) for part in parts]
    return wide[0] if len(wide) == 1 else r.emit(tfl.concatenation, wide, axis=0)
