"""The summary of a file: its figures and its text."""

from __future__ import annotations

from pathlib import Path

from fxquant.backends.lowering.output_file import write_file
from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.inspection import Borders, inspect_bytes, inspect_file
from fxquant.backends.tflite.serialize import serialize
from tests.backends.tflite.hand_graph import HandGraph, int8_net, random_float
from tests.conftest import Golden


def test_counts_borders_and_floats() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 3, 4, 4))
    moved = graph.call(tfl.transpose, x, (0, 2, 3, 1))
    small = graph.call(tfl.quantize, moved, out=QType("int8", 0.1, 0))
    real = graph.call(tfl.dequantize, small)
    net = graph.finish(graph.call(tfl.softmax, real))
    summary = inspect_bytes(b"".join(serialize(net)))
    assert summary.borders == Borders(transpose=1, quantize=1, dequantize=1)
    assert summary.floats == ("transpose", "softmax")
    assert summary.operators["SOFTMAX"] == 1
    assert list(summary.inputs) == ["x"]
    assert list(summary.outputs) == ["output"]


def test_text_of_an_int8_net(golden: Golden, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    write_file(path, serialize(int8_net()))
    text = inspect_file(path).render(tensors=True).replace(str(path), "m.tflite")
    made_by = next(line for line in text.splitlines() if line.startswith("made by"))
    golden("inspect_int8_net", text.replace(made_by, "made by  fxquant"))
