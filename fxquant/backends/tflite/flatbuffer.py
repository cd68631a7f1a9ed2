"""A FileModel as the bytes of a file, the large constants not copied.

    FileModel  ->  [head, length, weight 1, padding + length, weight 2, …]

FlatBuffers point forward by distance, so the weights may lie behind everything that the builder
writes: the head is some kilobytes, made in milliseconds, and each weight is a view of the memory
that the graph's own tensor has. Beyond 2 GiB, where a FlatBuffer ends, the weights lie behind
the FlatBuffer itself and each buffer says where (`Buffer.offset` and `size`).
Every constant starts at a multiple of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
import tflite

from fxquant.backends.tflite.contents import (
    DTYPE_CODES,
    Bytes,
    FileModel,
    FileOperator,
    FileTensor,
    Signature,
    Subgraph,
)
from fxquant.backends.tflite.options import UNIONS, union_of, write_options
from fxquant.ir.types import Quantization

ALIGNMENT = 16
INLINE_LIMIT = 2**31 - 2**22
SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
SMALL = 4096  # below it a copy costs less than a segment of its own
_LENGTH = 4  # bytes of the number that stands before a vector
_DEPRECATED_CODE_LIMIT = 127


def to_segments(model: FileModel, *, inline_limit: int = INLINE_LIMIT) -> list[Bytes]:
    """The file in pieces, to be written one behind the other; large constants are views.

    Args:
        model: the file's contents.
        inline_limit: above so many bytes of constants they go behind the FlatBuffer.
    """
    total = sum(len(data) + ALIGNMENT + _LENGTH for data in model.buffers)
    return _Writer(model, inline=total <= inline_limit).segments()


@dataclass
class _Tail:
    """The bytes behind the head: small pieces are joined, large ones kept as views."""

    segments: list[Bytes] = field(default_factory=list)
    size: int = 0
    _joined: bytearray = field(default_factory=bytearray)

    def add(self, data: Bytes, *, prefix: int) -> int:
        """Append a constant, aligned, behind `prefix` bytes of its length; where it begins."""
        padding = (-self.size - prefix) % ALIGNMENT
        length = len(data).to_bytes(_LENGTH, "little") if prefix else b""
        self._append(b"\0" * padding + length)
        self._append(data)
        return self.size - len(data) - prefix

    def finish(self) -> list[Bytes]:
        """All segments, the last padded so that the file is a multiple of the alignment."""
        self._append(b"\0" * (-self.size % ALIGNMENT))
        self._flush()
        return self.segments

    def _append(self, data: Bytes) -> None:
        self.size += len(data)
        if len(data) < SMALL:
            self._joined += data
        else:
            self._flush()
            self.segments.append(data)

    def _flush(self) -> None:
        if self._joined:
            self.segments.append(bytes(self._joined))
            self._joined.clear()


class _Writer:
    """Builds the head once, bottom up, as FlatBuffers must be."""

    def __init__(self, model: FileModel, *, inline: bool) -> None:
        tensors = sum(len(subgraph.tensors) for subgraph in model.subgraphs)
        self.model = model
        self.inline = inline
        self.builder = flatbuffers.Builder(1 << max(12, (tensors * 512).bit_length()))
        self.tail = _Tail()
        self.placeholders: list[tuple[int, int]] = []
        self.vectors: dict[object, int] = {}
        self.codes: dict[tuple[int, int, str | None], int] = {}

    def segments(self) -> list[Bytes]:
        """Head and tail."""
        builder = self.builder
        builder.Prep(ALIGNMENT, 0)  # the head's size becomes a multiple of the alignment
        buffers = self.offsets([self.buffer(data) for data in self.all_buffers()])
        subgraphs = self.offsets([self.subgraph(subgraph) for subgraph in self.model.subgraphs])
        codes = self.offsets([self.operator_code(*key) for key in self.codes])
        signatures = self.offsets([self.signature(each) for each in self.model.signatures])
        metadata = self.offsets(self.metadata())
        description = builder.CreateString(self.model.description)
        tflite.ModelStart(builder)
        tflite.ModelAddVersion(builder, SCHEMA_VERSION)
        tflite.ModelAddOperatorCodes(builder, codes)
        tflite.ModelAddSubgraphs(builder, subgraphs)
        tflite.ModelAddDescription(builder, description)
        tflite.ModelAddBuffers(builder, buffers)
        tflite.ModelAddMetadata(builder, metadata)
        tflite.ModelAddSignatureDefs(builder, signatures)
        builder.Finish(tflite.ModelEnd(builder), IDENTIFIER)
        head = memoryview(builder.Bytes)[builder.Head() :]
        self.fill_placeholders(head)
        return [head, *self.tail.finish()]

    def all_buffers(self) -> list[Bytes]:
        """The constants, then the metadata's bytes."""
        return [*self.model.buffers, *self.model.metadata.values()]

    def buffer(self, data: Bytes) -> int:
        """One Buffer table; its bytes go into the tail."""
        if not len(data):
            tflite.BufferStart(self.builder)
        elif self.inline:
            # The data lie behind the end of the builder's bytes: a distance below zero.
            behind = -self.tail.add(data, prefix=_LENGTH)
            tflite.BufferStart(self.builder)
            tflite.BufferAddData(self.builder, behind)
        else:
            self.outside(self.tail.add(data, prefix=0), len(data))
        return int(tflite.BufferEnd(self.builder))

    def outside(self, position: int, size: int) -> None:
        """A Buffer that says where in the file its bytes are; the head's size comes later."""
        tflite.BufferStart(self.builder)
        tflite.BufferAddSize(self.builder, size)
        tflite.BufferAddOffset(self.builder, 1 << 62)
        self.placeholders.append((self.builder.Offset(), position))

    def fill_placeholders(self, head: memoryview) -> None:
        """Write the places of outside buffers, now that the head's size is known."""
        for from_end, position in self.placeholders:
            place = len(head) - from_end
            head[place : place + 8] = (len(head) + position).to_bytes(8, "little")

    def subgraph(self, subgraph: Subgraph) -> int:
        """One SubGraph table with its tensors and operators."""
        tensors = self.offsets([self.tensor(each) for each in subgraph.tensors])
        operators = self.offsets([self.operator(each) for each in subgraph.operators])
        inputs, outputs = self.numbers(subgraph.inputs), self.numbers(subgraph.outputs)
        name = self.builder.CreateString(subgraph.name)
        tflite.SubGraphStart(self.builder)
        tflite.SubGraphAddTensors(self.builder, tensors)
        tflite.SubGraphAddInputs(self.builder, inputs)
        tflite.SubGraphAddOutputs(self.builder, outputs)
        tflite.SubGraphAddOperators(self.builder, operators)
        tflite.SubGraphAddName(self.builder, name)
        return int(tflite.SubGraphEnd(self.builder))

    def tensor(self, tensor: FileTensor) -> int:
        """One Tensor table."""
        builder = self.builder
        name = builder.CreateString(tensor.name)
        shape = self.numbers(tensor.shape)
        signature = None if tensor.signature is None else self.numbers(tensor.signature)
        quantization = self.quantization(tensor.quantization)
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, shape)
        tflite.TensorAddType(builder, DTYPE_CODES[tensor.dtype])
        tflite.TensorAddBuffer(builder, tensor.buffer)
        tflite.TensorAddName(builder, name)
        tflite.TensorAddHasRank(builder, True)
        if quantization is not None:
            tflite.TensorAddQuantization(builder, quantization)
        if signature is not None:
            tflite.TensorAddShapeSignature(builder, signature)
        if tensor.is_variable:
            tflite.TensorAddIsVariable(builder, True)
        return int(tflite.TensorEnd(builder))

    def quantization(self, quantization: Quantization | None) -> int | None:
        """One QuantizationParameters table; equal ones are written once."""
        if quantization is None:
            return None
        return self.once(quantization, lambda: self._quantization(quantization))

    def _quantization(self, quantization: Quantization) -> int:
        builder = self.builder
        scale = builder.CreateNumpyVector(np.asarray(quantization.scale, np.float32))
        zero_point = builder.CreateNumpyVector(np.asarray(quantization.zero_point, np.int64))
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scale)
        tflite.QuantizationParametersAddZeroPoint(builder, zero_point)
        tflite.QuantizationParametersAddQuantizedDimension(builder, quantization.axis or 0)
        return int(tflite.QuantizationParametersEnd(builder))

    def operator(self, operator: FileOperator) -> int:
        """One Operator table; its code is noted for the list of codes."""
        builder = self.builder
        key = (operator.code, operator.version, operator.custom)
        code = self.codes.setdefault(key, len(self.codes))
        inputs, outputs = self.numbers(operator.inputs), self.numbers(operator.outputs)
        intermediates = self.numbers(operator.intermediates) if operator.intermediates else None
        options = operator.options
        fields = None if options is None else write_options(builder, options)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, code)
        tflite.OperatorAddInputs(builder, inputs)
        tflite.OperatorAddOutputs(builder, outputs)
        if intermediates is not None:
            tflite.OperatorAddIntermediates(builder, intermediates)
        if options is not None:
            union = union_of(options.table)
            number = UNIONS[union - 1][options.table]
            suffix = "" if union == 1 else "2"
            getattr(tflite, f"OperatorAddBuiltinOptions{suffix}Type")(builder, number)
            getattr(tflite, f"OperatorAddBuiltinOptions{suffix}")(builder, fields)
        return int(tflite.OperatorEnd(builder))

    def operator_code(self, code: int, version: int, custom: str | None) -> int:
        """One OperatorCode; old readers look at the one-byte field."""
        name = None if custom is None else self.builder.CreateString(custom)
        tflite.OperatorCodeStart(self.builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(self.builder, min(code, _DEPRECATED_CODE_LIMIT))
        tflite.OperatorCodeAddBuiltinCode(self.builder, code)
        tflite.OperatorCodeAddVersion(self.builder, version)
        if name is not None:
            tflite.OperatorCodeAddCustomCode(self.builder, name)
        return int(tflite.OperatorCodeEnd(self.builder))

    def signature(self, signature: Signature) -> int:
        """One SignatureDef table."""
        inputs = self.offsets([self.tensor_map(*pair) for pair in signature.inputs])
        outputs = self.offsets([self.tensor_map(*pair) for pair in signature.outputs])
        key = self.builder.CreateString(signature.key)
        tflite.SignatureDefStart(self.builder)
        tflite.SignatureDefAddInputs(self.builder, inputs)
        tflite.SignatureDefAddOutputs(self.builder, outputs)
        tflite.SignatureDefAddSignatureKey(self.builder, key)
        tflite.SignatureDefAddSubgraphIndex(self.builder, signature.subgraph)
        return int(tflite.SignatureDefEnd(self.builder))

    def tensor_map(self, name: str, tensor: int) -> int:
        """One pair of a user's name and a tensor."""
        text = self.builder.CreateString(name)
        tflite.TensorMapStart(self.builder)
        tflite.TensorMapAddName(self.builder, text)
        tflite.TensorMapAddTensorIndex(self.builder, tensor)
        return int(tflite.TensorMapEnd(self.builder))

    def metadata(self) -> Iterable[int]:
        """The Metadata tables; their bytes are the last buffers."""
        for number, name in enumerate(self.model.metadata, start=len(self.model.buffers)):
            text = self.builder.CreateString(name)
            tflite.MetadataStart(self.builder)
            tflite.MetadataAddName(self.builder, text)
            tflite.MetadataAddBuffer(self.builder, number)
            yield int(tflite.MetadataEnd(self.builder))

    def numbers(self, values: Sequence[int]) -> int:
        """A vector of int32; equal ones are written once."""
        return self.once(
            values, lambda: int(self.builder.CreateNumpyVector(np.asarray(values, np.int32)))
        )

    def once(self, key: object, write: Callable[[], int]) -> int:
        """The offset of something written before, or of what `write` makes now."""
        offset = self.vectors.get(key)
        if offset is None:
            offset = self.vectors[key] = write()
        return offset

    def offsets(self, offsets: Iterable[int]) -> int:
        """A vector of tables."""
        tables = list(offsets)
        self.builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self.builder.PrependUOffsetTRelative(table)
        return int(self.builder.EndVector())
