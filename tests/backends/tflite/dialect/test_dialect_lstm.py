"""The integer LSTM by hand: the same bytes as LiteRT's, at every cell scale and zero point."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.interpreter import LiteRT
from fxquant.backends.tflite.kernels.fixed_curves import sigmoid_table, tanh_table
from fxquant.backends.tflite.reader import read_bytes
from fxquant.backends.tflite.serialize import serialize
from fxquant.errors import InvalidGraph
from tests.backends.tflite.hand_graph import HandGraph

STEPS, BATCH, INPUTS, HIDDEN = 7, 3, 5, 6


def graph_of(
    exponent: int, zero_point: int, time_major: bool, weight_scale: float, states: Tensor
) -> tuple[GraphModule, Tensor]:
    """One layer whose first states are given; the graph returns all outputs and the last c."""
    torch.manual_seed(exponent + 100 * zero_point)
    size = (STEPS, BATCH, INPUTS) if time_major else (BATCH, STEPS, INPUTS)
    data = torch.randint(-128, 128, size, dtype=torch.int8)
    h_grid, c_grid = QType("int8", 0.0071, zero_point), QType("int16", 2.0**exponent, 0)
    graph = HandGraph()
    x = graph.input("x", data, QType("int8", 0.021, -7))
    start = graph.input("start", states, h_grid)
    h = graph.call(tfl.reverse_v2, start, axis=(0,))
    c = graph.call(tfl.quantize, start, out=c_grid)
    scales = weight_scale * (1 + torch.rand(8))

    def weights(name: str, columns: int, first: int) -> list[Node]:
        found = []
        for gate in range(4):
            values = torch.randint(-127, 128, (HIDDEN, columns), dtype=torch.int8)
            scale = (float(scales[first + gate]),)
            found.append(graph.constant(f"{name}{gate}", values, scale, (0,)))
        return found

    biases = [
        graph.constant(
            f"b{gate}",
            torch.randint(-30000, 30000, (HIDDEN,), dtype=torch.int32),
            (0.021 * float(scales[gate]),),
            (0,),
        )
        for gate in range(4)
    ]
    both = graph.call(
        tfl.unidirectional_sequence_lstm,
        x,
        weights("w", INPUTS, 0),
        weights("u", HIDDEN, 4),
        biases,
        h,
        c,
        time_major=time_major,
    )
    y, last = graph.part(both, 0), graph.part(both, 1)
    return graph.finish(y, graph.call(tfl.dequantize, last)), data


@pytest.mark.parametrize("kernels", ["reference", "optimized", "xnnpack"])
@pytest.mark.parametrize(
    ("exponent", "zero_point", "time_major", "weight_scale"),
    [
        (-15, 0, True, 0.004),
        (-14, 5, False, 0.004),
        (-12, -20, True, 0.004),
        (-11, 60, False, 0.02),
        (-10, -90, True, 0.0005),
        (-9, 3, True, 0.05),
    ],
)
def test_the_bytes_are_those_of_the_runtime(
    exponent: int, zero_point: int, time_major: bool, weight_scale: float, kernels: str
) -> None:
    torch.manual_seed(0)
    states = torch.randint(-128, 128, (BATCH, HIDDEN), dtype=torch.int8)
    module, data = graph_of(exponent, zero_point, time_major, weight_scale, states)
    wanted = module(data, states)
    assert len(set(wanted[0].reshape(-1).tolist())) > 15
    with LiteRT(b"".join(map(bytes, serialize(module))), kernels=kernels) as runtime:  # type: ignore[arg-type]
        for _ in range(2):
            found = list(runtime.run([data.numpy(), states.numpy()]).values())
            assert torch.equal(torch.tensor(found[0]), wanted[0])
            assert torch.equal(torch.tensor(found[1]), wanted[1])


def test_the_file_says_what_the_kernel_reads_scales_from() -> None:
    states = torch.zeros(BATCH, HIDDEN, dtype=torch.int8)
    module, _ = graph_of(-12, 5, True, 0.004, states)
    model = read_bytes(b"".join(map(bytes, serialize(module))))
    (layer,) = (op for op in model.main.operators if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM")
    kinds = [model.main.tensors[index] for index in layer.intermediates]
    assert [kind.dtype for kind in kinds] == ["int16"] * 4 + ["int8"]
    output = model.main.tensors[layer.outputs[0]]
    assert kinds[4].quantization == output.quantization


@pytest.mark.parametrize("scale", [2.0**-16, 2.0**-8, 0.0003])
def test_a_cell_scale_that_the_kernel_gets_wrong_is_refused(scale: float) -> None:
    """LiteRT takes 2**-8 and 2**-16 and gives numbers that mean nothing."""
    from fxquant.backends.tflite.kernels.lstm import cell_exponent

    with pytest.raises(InvalidGraph, match=r"power of two from 2\*\*-15 to 2\*\*-9"):
        cell_exponent(scale)


@pytest.mark.parametrize("bits", range(7))
def test_the_curves_are_close_to_the_functions(bits: int) -> None:
    raw = torch.arange(-(1 << 15), 1 << 15).double()
    exact = torch.tanh(raw * 2.0 ** (bits - 15))
    assert float((tanh_table(bits) / 2**15 - exact).abs().max()) < 6e-4
    exact = torch.sigmoid(raw * 2.0**-12)
    assert float((sigmoid_table() / 2**15 - exact).abs().max()) < 6e-4
