"""Rows of recurrent layers over whole sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.ir.types import Quantization, TensorType

from ...kernels.lstm import GATE_STEP
from ..row import Call
from .short_form import ACTIVATION, row

GATE = TensorType((), torch.int16, Quantization((GATE_STEP,), (0,), None))


def _scales(call: Call) -> Sequence[TensorType]:
    """Of the integer kernel: the four gates, of which it reads nothing, and what becomes h."""
    kind = call.results[0]
    if kind.quantization is None:
        return ()
    return (*[GATE] * 4, TensorType((), kind.dtype, kind.quantization))


RECURRENT = (
    row(
        "unidirectional_sequence_lstm",
        "x *input_weights *recurrent_weights cell_to_input cell_to_forget cell_to_output *biases "
        "projection projection_bias h c",
        "UnidirectionalSequenceLSTMOptions",
        f"{ACTIVATION} cell_clip proj_clip time_major asymmetric_quantize_inputs",
        kinds="f32 q8",
        versions={
            "hybrid": 2,
            "asymmetric hybrid": 3,
            "i8": 3,
        },  # no version says "integers"; this one is of the release before
        results=2,
        variables={"h": None, "c": 1},
        intermediates=_scales,
    ),
    row(
        "unidirectional_sequence_rnn",
        "x weights recurrent_weights bias h",
        "SequenceRNNOptions",
        f"time_major {ACTIVATION}",
        kinds="f32",
        variables={"h": None},
    ),
)
