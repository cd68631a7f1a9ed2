"""What a .tflite file holds, as plain data: the writer takes it, the reader gives it back.

    FileModel
      subgraphs   Subgraph: tensors, operators in execution order, inputs, outputs
      buffers     the constants' bytes; number 0 is empty and means "no constant"
      signatures  the user's names for inputs and outputs
      metadata    named byte strings

Tensors are meant by their index, as in the file; -1 stands for an optional operand left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tflite

from fxquant.ir.types import Quantization

Bytes = bytes | memoryview

OPERATOR_NAMES: dict[int, str] = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)
}
DTYPE_CODES: dict[str, int] = {
    name.lower(): code for name, code in vars(tflite.TensorType).items() if isinstance(code, int)
} | {"int2": 19, "uint4": 20}
DTYPE_OF_CODE: dict[int, str] = {code: name for name, code in DTYPE_CODES.items()}


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor: `buffer` is 0 for an activation, `signature` has -1 at dynamic sizes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None
    buffer: int = 0
    signature: tuple[int, ...] | None = None
    is_variable: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether the file holds the tensor's values."""
        return self.buffer != 0


@dataclass(frozen=True, slots=True)
class Options:
    """The fields of an operator's options table, by the schema's names."""

    table: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileOperator:
    """One operator: builtin code and version, operands as tensor indices, options.

    `intermediates` are tensors without values; some kernels read scales from them.
    """

    code: int
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options | None = None
    custom: str | None = None
    intermediates: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The builtin's name, e.g. CONV_2D; a custom operator's own name.

        >>> FileOperator(3, 1, (0, 1, 2), (3,)).name
        'CONV_2D'
        """
        return self.custom or OPERATOR_NAMES.get(self.code, f"BUILTIN_{self.code}")


@dataclass(frozen=True, slots=True)
class Signature:
    """A named way to call a subgraph: pairs of the user's name and a tensor index."""

    key: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    subgraph: int = 0


@dataclass(frozen=True, slots=True)
class Subgraph:
    """A list of operators over a list of tensors."""

    name: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileModel:
    """A whole file."""

    subgraphs: tuple[Subgraph, ...]
    buffers: tuple[Bytes, ...] = (b"",)
    signatures: tuple[Signature, ...] = ()
    description: str = ""
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def main(self) -> Subgraph:
        """The subgraph that runs when the file is run."""
        return self.subgraphs[0]
