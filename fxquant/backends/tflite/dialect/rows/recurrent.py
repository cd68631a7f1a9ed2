"""Rows of recurrent layers over whole sequences."""

from __future__ import annotations

from .short_form import ACTIVATION, row

RECURRENT = (
    row(
        "unidirectional_sequence_lstm",
        "x *input_weights *recurrent_weights cell_to_input cell_to_forget cell_to_output *biases "
        "projection projection_bias h c",
        "UnidirectionalSequenceLSTMOptions",
        f"{ACTIVATION} cell_clip proj_clip time_major",
        kinds="f32",
        results=2,
        variables={"h": None, "c": 1},
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
