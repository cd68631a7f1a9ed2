"""Writing a file whose weights stand in a second one: `model.onnx` and `model.onnx.data`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fxquant.backends.lowering.output_file import write_file

from .serialize import Segment

SUFFIX = ".data"


def save(segments: Sequence[Segment], path: Path) -> None:
    """Write the protobuf, and the weights where they are pieces of their own.

    The weights are written first, so that a model never stands without them.

    Raises:
        OutputError: the path cannot be written.
    """
    head, *pieces = segments
    if not pieces:
        write_file(path, [head])
        return
    data = path.with_name(path.name + SUFFIX)
    write_file(data, pieces)
    write_file(path, [_placed(bytes(head), data.name)])


def _placed(head: bytes, name: str) -> bytes:
    """The protobuf with the name of the second file in it."""
    import onnx

    model = onnx.ModelProto.FromString(head)
    for tensor in model.graph.initializer:
        for fact in tensor.external_data:
            if fact.key == "location":
                fact.value = name
    written: bytes = model.SerializeToString()
    return written
