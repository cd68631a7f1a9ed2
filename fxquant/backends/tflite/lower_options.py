"""The choices that only TFLite files have, checked as they come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Storage = Literal["float32", "float16", "bfloat16"]
Recurrent = Literal["unrolled", "fused"]

FUSED: dict[Recurrent, tuple[str, ...]] = {
    "unrolled": (),
    "fused": ("lstm", "rnn_tanh", "rnn_relu"),
}
"""The layers over whole sequences that stay one operator; LiteRT has none for a GRU."""


@dataclass(frozen=True)
class TfliteOptions:
    """What `lower(…, backend="tflite", options={…})` takes.

    Attributes:
        bfloat16_storage: how constants rounded to bfloat16 are stored. "float32" holds them and
            is computed fastest; "float16" halves the size of those that it holds exactly;
            "bfloat16" halves all, but a CAST runs at every inference and keeps their readers out
            of XNNPACK.
        round_activations: let the file round activations to bfloat16 as the simulation does, by
            pairs of CAST; without it the file computes in float32 between rounded weights.
        recurrent: how LSTM and RNN layers in float are written: "fused", one operator for each
            layer and direction, or "unrolled", step by step.
    """

    bfloat16_storage: Storage = "float32"
    round_activations: bool = False
    recurrent: Recurrent = "fused"
