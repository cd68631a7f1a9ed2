"""Files run by name in each set of kernels; crashes and refusals become errors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.contents import (
    FileModel,
    FileOperator,
    FileTensor,
    Options,
    Subgraph,
)
from fxquant.backends.tflite.flatbuffer import to_segments
from fxquant.backends.tflite.interpreter import LiteRT, RuntimeFailure
from fxquant.backends.tflite.serialize import serialize
from fxquant.errors import InputError, MissingDependency
from fxquant.ir.types import Quantization
from tests.backends.tflite.hand_graph import HandGraph, int8_net, random_float, random_int8


@pytest.mark.parametrize("isolate", [False, True])
def test_inputs_outputs_and_intermediates_by_name(isolate: bool) -> None:
    x = random_int8(1, 8, 8, 4).numpy()
    with LiteRT(serialize(int8_net()), preserve=True, isolate=isolate) as runtime:
        assert list(runtime.inputs) == ["x"]
        named, ordered = runtime.run({"x": x}), runtime.run([x])
        np.testing.assert_array_equal(named["output"], ordered["output"])
        assert runtime.tensor("conv_2d").shape == (1, 4, 4, 8)
        with pytest.raises(InputError, match="no tensor 'nothing'"):
            runtime.tensor("nothing")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": np.zeros((1, 8, 8, 4), np.int8)}, r"inputs are \['x'\], not \['y'\]"),
        ({"x": np.zeros((1, 8, 8, 4), np.float32)}, "input x is int8, not float32"),
        ({"x": np.zeros((1, 8, 8, 5), np.int8)}, r"input x has shape \[1, 8, 8, 4\]"),
        ([], "the file has 1 inputs"),
    ],
)
def test_wrong_inputs(inputs: object, message: str) -> None:
    runtime = LiteRT(serialize(int8_net()))
    with pytest.raises(InputError, match=message):
        runtime.run(inputs)  # type: ignore[arg-type]


def test_a_crash_of_the_runtime_is_an_error_here() -> None:
    same = FileTensor("x", (1, 600), "int8", Quantization((0.01,), (0,)))
    result = FileTensor("y", (1, 600), "int8", Quantization((1 / 256,), (-128,)))
    softmax = FileOperator(25, 2, (0,), (1,), Options("SoftmaxOptions", {"beta": 1.0}))
    model = FileModel((Subgraph("main", (same, result), (softmax,), (0,), (1,)),))
    with (
        LiteRT(to_segments(model), kernels="reference", isolate=True) as runtime,
        pytest.raises(RuntimeFailure, match="took its process down"),
    ):
        runtime.run([np.zeros((1, 600), np.int8)])


@pytest.mark.parametrize("isolate", [False, True])
def test_a_refused_file_is_an_error_in_the_words_of_the_runtime(isolate: bool) -> None:
    x = FileTensor("x", (1, 4), "float32")
    unknown = FileOperator(32, 1, (0,), (0,), custom="Unknown")
    model = FileModel((Subgraph("main", (x,), (unknown,), (0,), (0,)),))
    with pytest.raises(RuntimeFailure, match="LiteRT: .*Unknown"):
        LiteRT(to_segments(model), isolate=isolate)


def test_unknown_kernels() -> None:
    with pytest.raises(InputError, match="there are no kernels 'fast'"):
        LiteRT(serialize(int8_net()), kernels="fast")  # type: ignore[arg-type]


def test_without_litert_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(2))
    data = serialize(graph.finish(graph.call(tfl.relu, x)))
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingDependency, match="pip install 'fxquant"):
        LiteRT(data)
