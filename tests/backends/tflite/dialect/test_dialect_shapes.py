"""Every operator on fake and meta tensors: the shape, dtype and quantization of the real result."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QTensor, QType
from tests.backends.tflite.dialect.one_operator import Draw
from tests.backends.tflite.dialect.test_dialect_movement import CASES

OUT = QType("int8", 0.25, 3)
PROBABILITY = QType("int8", 1 / 256, -128)
WINDOW = {"filter_height": 2, "filter_width": 2, "stride_h": 2, "stride_w": 2}
draw = Draw(0)
IMAGE = draw.value(1, 8, 8, 4)
WEIGHTS = draw.weights(6, 3, 3, 4, axis=0, channels=6)
DEEP = draw.weights(1, 3, 3, 4, axis=3, channels=4)
DENSE = draw.weights(5, 4, axis=None, channels=5)
Use = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
USES: list[Use] = [
    (tfl.conv_2d, (IMAGE, WEIGHTS, draw.bias(IMAGE, WEIGHTS, 6, torch.int32)), {"out": OUT}),
    (tfl.depthwise_conv_2d, (IMAGE, DEEP, draw.bias(IMAGE, DEEP, 4, torch.int32)), {"out": OUT}),
    (tfl.fully_connected, (IMAGE, DENSE, None), {"out": OUT, "keep_num_dims": True}),
    (tfl.batch_matmul, (IMAGE, IMAGE), {"out": OUT, "adj_y": True}),
    (tfl.transpose_conv, (IMAGE, WEIGHTS), {"out": OUT, "output_shape": (1, 8, 8, 6)}),
    (tfl.add, (IMAGE, IMAGE), {"out": OUT}),
    (tfl.mul, (IMAGE, IMAGE), {"out": OUT}),
    (tfl.maximum, (IMAGE, IMAGE), {}),
    (tfl.less, (IMAGE, IMAGE), {}),
    (tfl.relu6, (IMAGE,), {"out": OUT}),
    (tfl.hard_swish, (IMAGE,), {"out": OUT}),
    (tfl.softmax, (IMAGE,), {"out": PROBABILITY}),
    (tfl.max_pool_2d, (IMAGE,), WINDOW),
    (tfl.average_pool_2d, (IMAGE,), WINDOW),
    (tfl.mean, (IMAGE, (1, 2)), {"out": OUT}),
    (tfl.arg_max, (IMAGE, 3), {}),
    (tfl.resize_bilinear, (IMAGE, (5, 9)), {}),
    (tfl.resize_nearest_neighbor, (IMAGE, (5, 9)), {}),
    (tfl.concatenation, ([IMAGE, IMAGE],), {"axis": 3}),
    (tfl.quantize, (draw.real(2, 3),), {"out": OUT}),
    (tfl.quantize, (IMAGE,), {"out": OUT}),
    (tfl.dequantize, (IMAGE,), {}),
    (tfl.gather, (IMAGE, torch.tensor([1, 0])), {"axis": 2}),
    (tfl.select_v2, (torch.tensor([True]), IMAGE, IMAGE), {}),
    *[
        (function, (value, *rest), options)
        for function, shape, rest, options in CASES
        for value in (draw.value(*shape), draw.real(*shape))
    ],
]


def converted(argument: Any, convert: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(argument, QTensor):
        return argument._replace(values=convert(argument.values))
    if isinstance(argument, Tensor):
        return convert(argument)
    if isinstance(argument, list):
        return [converted(part, convert) for part in argument]
    return argument


def described(result: Any) -> Any:
    if isinstance(result, list):
        return [described(part) for part in result]
    return result.type if isinstance(result, QTensor) else (result.shape, result.dtype)


@pytest.mark.parametrize("use", USES, ids=lambda use: use[0].__name__)
def test_fake_and_meta_results_have_the_real_type(use: Use) -> None:
    function, operands, options = use
    expected = described(function(*operands, **options))
    mode = FakeTensorMode()
    fakes = [converted(operand, mode.from_tensor) for operand in operands]
    assert described(function(*fakes, **options)) == expected
    with mode:
        assert described(function(*fakes, **options)) == expected
    metas = [converted(operand, lambda data: data.to("meta")) for operand in operands]
    assert described(function(*metas, **options)) == expected


def small_net(x: Tensor) -> Tensor:
    value = tfl.bind(x, out=QType("int8", 0.1, 0))
    return tfl.unbind(tfl.relu(value, out=QType("int8", 0.1, -128)))


def test_a_graph_of_the_dialect_copies() -> None:
    """`QType` stays what it is."""
    graph = Graph()
    x = graph.placeholder("x")
    value = graph.call_function(tfl.bind, (x,), {"out": QType("int8", 0.1, 0)})
    relu = graph.call_function(tfl.relu, (value,), {"out": QType("int8", 0.1, -128)})
    graph.output(graph.call_function(tfl.unbind, (relu,)))
    graph_module = GraphModule(torch.nn.Module(), graph)
    data = torch.arange(-128, 128, dtype=torch.int8)
    expected = small_net(data)
    for clone in (graph_module, copy.deepcopy(graph_module)):
        assert torch.equal(clone(data), expected)
