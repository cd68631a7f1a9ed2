"""The choices that only the generated model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["given", "stubbed"]


@dataclass(frozen=True)
class SourceOptions:
    """What `lower(…, backend="source", options={…})` takes.

    Attributes:
        stage: `given` writes the graph as it is, `stubbed` a traced one with stubs, modules instead
            of functions, and a list of what can be fused.
        target: the backend whose constraints say where the stubs go.
    """

    stage: Stage = "given"
    target: str = "tflite"
