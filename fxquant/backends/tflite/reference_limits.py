"""Files that the reference kernels (BUILTIN_REF) cannot run, though every other kernel does.

    CEIL                              not there
    TRANSPOSE version 9               the reference kernels have 8
    SOFTMAX of int8 over 1000 values  aborts the process when all are alike
    SUM of int8                       ignores scale and zero point

Devices have the other kernels: such a file is fine, but it is verified with the optimized ones.
"""

from __future__ import annotations

from fxquant.backends.tflite.contents import FileModel, FileOperator, FileTensor

ABSENT = frozenset({"CEIL", "ROUND", "ELU", "SEGMENT_SUM", "STABLEHLO_AND", "STABLEHLO_SHIFT_LEFT"})
LATEST: dict[str, int] = {
    "ADD": 5,
    "MUL": 7,
    "DEPTHWISE_CONV_2D": 6,
    "DEPTH_TO_SPACE": 1,
    "SOFTMAX": 3,
    "SQUEEZE": 1,
    "STRIDED_SLICE": 4,
    "TILE": 2,
    "TRANSPOSE": 8,
    "ARG_MAX": 2,
    "ARG_MIN": 2,
    "SIN": 1,
    "COS": 1,
    "RANGE": 1,
    "ABS": 3,
    "GELU": 2,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 3,
}
LONGEST_SOFTMAX = 511


def why_not_reference(model: FileModel) -> str:
    """Why the reference kernels cannot run the file; empty when they can."""
    tensors = model.main.tensors
    for operator in model.main.operators:
        reason = _reason(operator, tensors)
        if reason:
            return f"{reason}; the optimized kernels were used instead"
    return ""


def _reason(operator: FileOperator, tensors: tuple[FileTensor, ...]) -> str:
    name = operator.name
    if name in ABSENT:
        return f"the reference kernels have no {name}"
    if operator.version > LATEST.get(name, operator.version):
        return f"the reference kernels have {name} only up to version {LATEST[name]}"
    first = tensors[operator.inputs[0]] if operator.inputs else None
    if first is None or first.quantization is None:
        return ""
    if name == "SOFTMAX" and first.dtype == "int8" and first.shape[-1] > LONGEST_SOFTMAX:
        return f"the reference SOFTMAX can abort on rows of {first.shape[-1]} values"
    return "the reference SUM ignores scales" if name == "SUM" else ""
