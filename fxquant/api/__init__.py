"""The few functions that a user needs: prepare, calibrate, convert, lower, compile.

    prepared  = prepare(model, example_inputs)
    calibrate(prepared, loader)
    quantized = convert(prepared)
    lower(quantized, "tflite").save("model.tflite")

Each returns a GraphModule that runs, until `lower`, whose result also writes a file.
"""

from fxquant.api.conversion import compile
from fxquant.api.lowering import lower, simulate, stayed_float, verify
from fxquant.api.preparation import convert, prepare, prepare_qat, quantize_dynamic
from fxquant.api.subject import Model, traced

__all__ = [
    "Model",
    "compile",
    "convert",
    "lower",
    "prepare",
    "prepare_qat",
    "quantize_dynamic",
    "simulate",
    "stayed_float",
    "traced",
    "verify",
]
