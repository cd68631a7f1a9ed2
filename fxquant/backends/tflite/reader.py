"""A .tflite file, ours or another's, as a FileModel; constants are views into the file.

    read_file("m.tflite")  ->  FileModel(subgraphs=(Subgraph("main", …),), buffers=(…), …)

The inverse of `flatbuffer.py`. A file that is not one gets a FormatError that says what is wrong
with it, whatever its bytes are.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tflite

from fxquant.backends.tflite.contents import (
    DTYPE_OF_CODE,
    Bytes,
    FileModel,
    FileOperator,
    FileTensor,
    Options,
    Signature,
    Subgraph,
)
from fxquant.backends.tflite.flatbuffer import IDENTIFIER, SCHEMA_VERSION
from fxquant.backends.tflite.options import UNIONS, read_options
from fxquant.errors import FormatError, InputError
from fxquant.ir.types import Quantization

T = TypeVar("T")
_SMALLEST = 8  # the root's offset and the identifier
_DAMAGE = (struct.error, IndexError, ValueError, KeyError, TypeError, OverflowError, AttributeError)
_TABLES = tuple({code: name for name, code in members.items()} for members in UNIONS)


def read_file(path: str | os.PathLike[str]) -> FileModel:
    """The contents of a file.

    Raises:
        InputError: there is no such file, or it cannot be read.
        FormatError: it is not a TFLite file, or a damaged one.
    """
    try:
        with Path(path).open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from error
    return read_bytes(memoryview(data), name=str(path))


def read_bytes(data: bytes | bytearray | memoryview, *, name: str = "the data") -> FileModel:
    """The contents of a file that is in memory; `name` is what errors call it.

    Raises:
        FormatError: it is not a TFLite file, or a damaged one.
    """
    view = memoryview(data)
    if len(view) < _SMALLEST:
        raise FormatError(f"{name} is not a TFLite file: it has only {len(view)} bytes")
    found = bytes(view[4:8])
    if found != IDENTIFIER:
        raise FormatError(
            f"{name} is not a TFLite file: it has {found!r} at byte 4, not {IDENTIFIER!r}",
            fix="give the path of a .tflite file",
        )
    try:
        return _model(view, tflite.Model.GetRootAs(view, 0))
    except FormatError as error:
        raise FormatError(f"{name} {error.problem.what}", fix=error.problem.fix) from None
    except _DAMAGE as error:
        raise FormatError(
            f"{name} is damaged: {error}", fix="write or copy the file again"
        ) from error


def _model(data: memoryview, raw: Any) -> FileModel:
    if raw.Version() != SCHEMA_VERSION:
        raise FormatError(f"has schema version {raw.Version()}; only {SCHEMA_VERSION} is known")
    buffers = tuple(_buffer(data, each) for each in _each(raw.Buffers, raw.BuffersLength()))
    codes = list(_each(raw.OperatorCodes, raw.OperatorCodesLength()))
    subgraphs = tuple(
        _subgraph(each, codes, len(buffers)) for each in _each(raw.Subgraphs, raw.SubgraphsLength())
    )
    if not subgraphs:
        raise FormatError("has no subgraph")
    return FileModel(
        subgraphs=subgraphs,
        buffers=buffers,
        signatures=tuple(
            _signature(each) for each in _each(raw.SignatureDefs, raw.SignatureDefsLength())
        ),
        description=_text(raw.Description()),
        metadata={
            _text(each.Name()): bytes(buffers[each.Buffer()])
            for each in _each(raw.Metadata, raw.MetadataLength())
        },
    )


def _each(get: Callable[[int], T], length: int) -> Iterator[T]:
    return (get(number) for number in range(length))


def _text(value: bytes | None) -> str:
    return value.decode("utf-8", "replace") if value else ""


def _buffer(data: memoryview, raw: Any) -> Bytes:
    offset, size = raw.Offset(), raw.Size()
    if offset > 1:
        if offset + size > len(data):
            raise FormatError(f"is cut off: a constant ends at byte {offset + size} of {len(data)}")
        return data[offset : offset + size]
    if raw.DataIsNone():
        return b""
    values: memoryview = raw.DataAsNumpy().data if raw.DataLength() else memoryview(b"")
    return values


def _subgraph(raw: Any, codes: list[Any], buffers: int) -> Subgraph:
    tensors = tuple(_tensor(each) for each in _each(raw.Tensors, raw.TensorsLength()))
    operators = tuple(
        _operator(each, codes) for each in _each(raw.Operators, raw.OperatorsLength())
    )
    subgraph = Subgraph(
        _text(raw.Name()),
        tensors,
        operators,
        _numbers(raw.InputsAsNumpy()),
        _numbers(raw.OutputsAsNumpy()),
    )
    _check_indices(subgraph, buffers)
    return subgraph


def _check_indices(subgraph: Subgraph, buffers: int) -> None:
    meant = [*subgraph.inputs, *subgraph.outputs]
    for operator in subgraph.operators:
        meant += [index for index in (*operator.inputs, *operator.outputs) if index != -1]
    wrong = [index for index in meant if not 0 <= index < len(subgraph.tensors)]
    if wrong:
        raise FormatError(f"is damaged: it means tensor {wrong[0]} of {len(subgraph.tensors)}")
    outside = [tensor for tensor in subgraph.tensors if tensor.buffer >= buffers]
    if outside:
        raise FormatError(f"is damaged: {outside[0].name} has buffer {outside[0].buffer}")


def _tensor(raw: Any) -> FileTensor:
    signature = _numbers(raw.ShapeSignatureAsNumpy())
    return FileTensor(
        name=_text(raw.Name()),
        shape=_numbers(raw.ShapeAsNumpy()),
        dtype=DTYPE_OF_CODE.get(raw.Type(), f"type {raw.Type()}"),
        quantization=_quantization(raw.Quantization()),
        buffer=raw.Buffer(),
        signature=signature or None,
        is_variable=raw.IsVariable(),
    )


def _quantization(raw: Any) -> Quantization | None:
    if raw is None or not raw.ScaleLength():
        return None
    scale = tuple(raw.ScaleAsNumpy().tolist())
    axis = raw.QuantizedDimension() if len(scale) > 1 else None
    return Quantization(scale, _numbers(raw.ZeroPointAsNumpy()), axis)


def _operator(raw: Any, codes: list[Any]) -> FileOperator:
    code = codes[raw.OpcodeIndex()]
    custom = _text(code.CustomCode()) or None
    return FileOperator(
        code=max(code.BuiltinCode(), code.DeprecatedBuiltinCode()),
        version=code.Version(),
        inputs=_numbers(raw.InputsAsNumpy()),
        outputs=_numbers(raw.OutputsAsNumpy()),
        options=_options(raw),
        custom=custom,
        intermediates=_numbers(raw.IntermediatesAsNumpy()),
    )


def _options(raw: Any) -> Options | None:
    kinds = (raw.BuiltinOptionsType(), raw.BuiltinOptions2Type())
    tables = (raw.BuiltinOptions(), raw.BuiltinOptions2())
    for names, kind, table in zip(_TABLES, kinds, tables, strict=True):
        if kind and table is not None and kind in names:
            return read_options(names[kind], table)
    return None


def _signature(raw: Any) -> Signature:
    return Signature(
        key=_text(raw.SignatureKey()),
        inputs=tuple(_pair(each) for each in _each(raw.Inputs, raw.InputsLength())),
        outputs=tuple(_pair(each) for each in _each(raw.Outputs, raw.OutputsLength())),
        subgraph=raw.SubgraphIndex(),
    )


def _pair(raw: Any) -> tuple[str, int]:
    return _text(raw.Name()), raw.TensorIndex()


def _numbers(values: Any) -> tuple[int, ...]:
    """A vector of the file; the bindings give 0 for one left out."""
    return tuple(values.tolist()) if isinstance(values, np.ndarray) else ()
