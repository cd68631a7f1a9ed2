"""The choices that only ONNX has, checked as they come in."""

from __future__ import annotations

from dataclasses import dataclass

from fxquant.errors import InputError

OPSETS = range(13, 23)
IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
PRECISIONS = {"float32": 17, "float16": 17, "bfloat16": 22}
"""Precisions of floats, with the opset that has all operators for them."""


@dataclass(frozen=True)
class OnnxOptions:
    """What `lower(…, backend="onnx", options={…})` takes.

    Attributes:
        opset: the version of the operators; None takes 17, and 22 for bfloat16.
        precision: of floats inside of the file; inputs and outputs keep their dtype.
        float_bias: keep biases of quantized layers in float, as TensorRT wants them.
        cast_missing: compute in float32, between casts, what ONNX Runtime has no kernel for in half
            precision on a CPU; False writes it in half precision, for other runtimes.
        external_data: store the weights in a second file; None does so where they exceed 2 GB.
    """

    opset: int | None = None
    precision: str = "float32"
    float_bias: bool = False
    cast_missing: bool = True
    external_data: bool | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            fix = f"use {', '.join(PRECISIONS)}"
            raise InputError(f"onnx has no precision {self.precision!r}", fix=fix)
        if self.opset is not None and self.opset not in OPSETS:
            fix = f"use one from {OPSETS[0]} to {OPSETS[-1]}"
            raise InputError(f"opset {self.opset} is not supported", fix=fix)
        if self.precision == "bfloat16" and self.version < 22:
            raise InputError("bfloat16 needs opset 22", fix="leave out opset=")

    @property
    def version(self) -> int:
        """The opset that is written."""
        return PRECISIONS[self.precision] if self.opset is None else self.opset
