"""What the reader gives back is what was written; files that are none get an error that says so."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from fxquant.backends.lowering.output_file import write_file
from fxquant.backends.tflite.contents import (
    FileModel,
    FileOperator,
    FileTensor,
    Options,
    Signature,
    Subgraph,
)
from fxquant.backends.tflite.flatbuffer import to_segments
from fxquant.backends.tflite.reader import read_bytes, read_file
from fxquant.backends.tflite.serialize import serialize
from fxquant.errors import FormatError, InputError
from fxquant.ir.types import Quantization
from tests.backends.tflite.hand_graph import int8_net


def example() -> FileModel:
    """Contents with a bit of everything: two subgraphs, custom and new operators, metadata."""
    weight = FileTensor("w", (2, 3), "int8", Quantization((0.5, 0.25), (0, 0), 0), buffer=1)
    state = FileTensor("state", (2,), "float32", is_variable=True)
    x = FileTensor("x", (1, 3), "float32", signature=(-1, 3))
    y = FileTensor("y", (1, 2), "float32")
    fields = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation_function": "RELU"}
    operators = (
        FileOperator(3, 2, (0, 1, -1), (3,), Options("Conv2DOptions", fields)),
        FileOperator(22, 1, (3,), (3,), Options("ReshapeOptions", {"new_shape": (1, 2)})),
        FileOperator(206, 1, (3,), (3,), Options("StableHLOCompositeOptions", {"name": "gelu"})),
        FileOperator(32, 1, (3,), (2,), custom="MyOperator"),
    )
    return FileModel(
        subgraphs=(
            Subgraph("main", (x, weight, state, y), operators, (0,), (3, 3)),
            Subgraph("other", (y,), (), (0,), (0,)),
        ),
        buffers=(b"", b"123456", bytes(5000)),
        signatures=(Signature("serving_default", (("in", 0),), (("out", 3), ("again", 3))),),
        description="by hand",
        metadata={"note": b"some bytes"},
    )


@pytest.mark.parametrize("inline_limit", [2**31, 0])
def test_what_is_written_is_read_again(inline_limit: int) -> None:
    model = example()
    found = read_bytes(b"".join(to_segments(model, inline_limit=inline_limit)))
    assert tuple(map(bytes, found.buffers)) == (*model.buffers, b"some bytes")
    assert found.signatures == model.signatures
    assert found.description == model.description
    assert found.metadata == model.metadata
    for mine, theirs in zip(model.subgraphs, found.subgraphs, strict=True):
        assert replace(theirs, operators=()) == replace(mine, operators=())
        for operator, read in zip(mine.operators, theirs.operators, strict=True):
            assert replace(read, options=None) == replace(operator, options=None)
            given = operator.options.fields if operator.options else {}
            fields = read.options.fields if read.options else {}
            assert {name: fields[name] for name in given} == given


def test_constants_are_views_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    write_file(path, to_segments(example()))
    buffer = read_file(path).buffers[2]
    assert isinstance(buffer, memoryview)
    assert buffer.readonly


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has only 0 bytes"),
        (b"abc", "it has only 3 bytes"),
        (b"PK\x03\x04" + bytes(100), "b'\\\\x00\\\\x00\\\\x00\\\\x00' at byte 4, not b'TFL3'"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(8), "is damaged"),
    ],
)
def test_data_that_are_no_file(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_bytes(data)


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    data = b"".join(to_segments(example(), inline_limit=0))
    (tmp_path / "short.tflite").write_bytes(data[:-4000])
    with pytest.raises(FormatError, match="short.tflite is cut off"):
        read_file(tmp_path / "short.tflite")


def test_another_version_of_the_schema() -> None:
    import tflite

    data = bytearray(b"".join(to_segments(example())))
    table = tflite.Model.GetRootAs(data, 0)._tab
    data[table.Pos + table.Offset(4)] = 2
    with pytest.raises(FormatError, match="schema version 2; only 3 is known"):
        read_bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_read_but_nothing_else(seed: int) -> None:
    data = b"".join(serialize(int8_net()))
    dice = random.Random(seed)
    for _ in range(100):
        damaged = bytearray(data[: dice.choice([len(data), dice.randrange(len(data))])])
        for _ in range(dice.randint(0, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            read_bytes(damaged)
        except FormatError as error:
            assert "the data" in str(error)


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_file(tmp_path / "missing.tflite")
    with pytest.raises(InputError, match="Is a directory"):
        read_file(tmp_path)


def test_a_tensor_that_is_not_there() -> None:
    main = example().main
    broken = replace(example(), subgraphs=(replace(main, outputs=(9,)),))
    with pytest.raises(FormatError, match="it means tensor 9 of 4"):
        read_bytes(b"".join(to_segments(broken)))
