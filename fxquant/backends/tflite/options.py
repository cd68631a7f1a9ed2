"""The options table of an operator: named fields to flatbuffer and back.

    Options("Conv2DOptions", {"stride_h": 2, "padding": "SAME"})  <->  a Conv2DOptions table

The `tflite` package has a function for each field of each table; they are found by name, so that
no operator needs code of its own. Enumerations are words (`"SAME"`, `"RELU6"`, `"int32"`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tflite

from fxquant.backends.tflite.contents import DTYPE_CODES, DTYPE_OF_CODE, Options


def _members(enumeration: type) -> dict[str, int]:
    return {name: code for name, code in vars(enumeration).items() if isinstance(code, int)}


UNIONS: tuple[dict[str, int], dict[str, int]] = (
    _members(tflite.BuiltinOptions),
    _members(tflite.BuiltinOptions2),
)

WORDS: dict[str, dict[str, int]] = {
    "padding": _members(tflite.Padding),
    "fused_activation_function": _members(tflite.ActivationFunctionType),
    "mode": _members(tflite.MirrorPadMode),
    "weights_format": _members(tflite.FullyConnectedOptionsWeightsFormat),
    "kernel_type": _members(tflite.LSTMKernelType),
    "combiner": _members(tflite.CombinerType),
    "type": _members(tflite.LSHProjectionType),
    **dict.fromkeys(
        ("quantized_bias_type", "in_data_type", "out_data_type", "out_type", "output_type"),
        DTYPE_CODES,
    ),
    "idx_out_type": DTYPE_CODES,
}
_NOT_FIELDS = ("GetRootAs", "BufferHasIdentifier", "Length", "AsNumpy", "IsNone")


def union_of(table: str) -> int:
    """Which of the two unions holds an options table: 1 or 2.

    >>> union_of("Conv2DOptions"), union_of("StablehloConcatenateOptions")
    (1, 2)
    """
    for number, members in enumerate(UNIONS, start=1):
        if table in members:
            return number
    raise KeyError(f"the TFLite schema has no options table {table}")


def write_options(builder: flatbuffers.Builder, options: Options) -> int:
    """Write an options table; its offset in the builder."""
    values = {name: _prepare(builder, options.table, name, v) for name, v in options.fields.items()}
    _function(options.table, "Start")(builder)
    for name, value in values.items():
        _function(options.table, f"Add{camel(name)}")(builder, value)
    end: int = _function(options.table, "End")(builder)
    return end


def read_options(table: str, raw: Any) -> Options:
    """Read the fields of an options table that is at `raw` (a flatbuffers Table)."""
    reader = getattr(tflite, table)()
    reader.Init(raw.Bytes, raw.Pos)
    return Options(table, {name: _read(reader, name, method) for name, method in _fields(table)})


def camel(name: str) -> str:
    """The spelling of a field in the generated functions.

    >>> camel("fused_activation_function"), camel("stride_h")
    ('FusedActivationFunction', 'StrideH')
    """
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def snake(name: str) -> str:
    """The schema's spelling of a field.

    >>> snake("FusedActivationFunction"), snake("StrideH"), snake("Seed2")
    ('fused_activation_function', 'stride_h', 'seed2')
    """
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


@functools.cache
def _function(table: str, what: str) -> Callable[..., Any]:
    found: Callable[..., Any] | None = getattr(tflite, f"{table}{what}", None)
    if found is None:
        raise KeyError(f"the TFLite schema has no field {what.removeprefix('Add')} in {table}")
    return found


def _prepare(builder: flatbuffers.Builder, table: str, name: str, value: Any) -> Any:
    if isinstance(value, str):
        words = WORDS.get(name)
        return words[value] if words and value in words else builder.CreateString(value)
    if isinstance(value, Sequence):
        wide = table.startswith("Stablehlo")
        return builder.CreateNumpyVector(np.asarray(value, np.int64 if wide else np.int32))
    return value


@functools.cache
def _fields(table: str) -> tuple[tuple[str, str], ...]:
    """Pairs of field name and method of a table; vectors are met by their AsNumpy method."""
    found = []
    for method, function in inspect.getmembers(getattr(tflite, table), inspect.isfunction):
        if method == "Init" or any(part in method for part in _NOT_FIELDS[:2]):
            continue
        arguments = len(inspect.signature(function).parameters)
        if method.endswith("AsNumpy"):
            found.append((snake(method.removesuffix("AsNumpy")), method))
        elif arguments == 1 and not method.endswith(_NOT_FIELDS[2:]):
            found.append((snake(method), method))
    return tuple(found)


def _read(reader: Any, name: str, method: str) -> object:
    value = getattr(reader, method)()
    if method.endswith("AsNumpy"):
        return tuple(value.tolist()) if isinstance(value, np.ndarray) else ()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    words = WORDS.get(name)
    if words is DTYPE_CODES:
        return DTYPE_OF_CODE.get(value, value)
    if words is not None:
        return next((word for word, code in words.items() if code == value), value)
    return bool(value) if isinstance(value, (bool, np.bool_)) else value
