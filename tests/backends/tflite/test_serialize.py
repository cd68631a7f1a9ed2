"""Written files load and compute in all three sets of kernels, and hold what the graph says."""

from __future__ import annotations

import numpy as np
import pytest
import tflite
import torch
from torch.fx import GraphModule

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.contents import DTYPE_CODES, OPERATOR_NAMES
from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.dialect.table import ROWS
from fxquant.backends.tflite.interpreter import Kernels, LiteRT
from fxquant.backends.tflite.options import camel, union_of
from fxquant.backends.tflite.reader import read_bytes
from fxquant.backends.tflite.runtime_versions import RELEASES
from fxquant.backends.tflite.serialize import contents_of, serialize
from fxquant.errors import InvalidGraph, UnsupportedOp
from tests.backends.tflite.hand_graph import (
    HandGraph,
    float_net,
    int8_net,
    random_float,
    random_int8,
)

ALL_KERNELS: tuple[Kernels, ...] = ("reference", "optimized", "xnnpack")
INSIDE_ONLY, OUTSIDE_ONLY = 2**31, 0


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("inline_limit", [INSIDE_ONLY, OUTSIDE_ONLY])
def test_int8_net_computes_the_same_bytes(kernels: Kernels, inline_limit: int) -> None:
    net, x = int8_net(), random_int8(1, 8, 8, 4, seed=5)
    with tfl.use_kernels(kernels):
        (expected,) = net(x)
    found = LiteRT(serialize(net, inline_limit=inline_limit), kernels=kernels).run({"x": x.numpy()})
    np.testing.assert_array_equal(found["output"], expected.numpy())


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("inline_limit", [INSIDE_ONLY, OUTSIDE_ONLY])
def test_float_net_computes_the_same(kernels: Kernels, inline_limit: int) -> None:
    net, x = float_net(), random_float(1, 8, 8, 3, seed=5)
    (expected,) = net(x)
    found = LiteRT(serialize(net, inline_limit=inline_limit), kernels=kernels).run([x.numpy()])
    np.testing.assert_allclose(found["output"], expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("inline_limit", [INSIDE_ONLY, OUTSIDE_ONLY])
def test_every_constant_starts_at_a_multiple_of_16_bytes(inline_limit: int) -> None:
    data = b"".join(serialize(int8_net(), inline_limit=inline_limit))
    model = tflite.Model.GetRootAs(data, 0)
    for number in range(1, model.BuffersLength()):
        buffer = model.Buffers(number)
        outside = buffer.Offset()
        inside = buffer._tab.Vector(buffer._tab.Offset(4)) if not outside else 0
        assert (outside or inside) % 16 == 0
        assert (outside or inside) > 0


def test_weights_are_views_of_the_graph_s_own_memory() -> None:
    graph = HandGraph()
    weight = random_float(64, 256)
    x = graph.input("x", random_float(1, 256))
    stored = graph.stored("weight", weight)
    net = graph.finish(graph.call(tfl.fully_connected, x, stored, None))
    segments = serialize(net)
    addresses = {np.frombuffer(each, np.uint8).ctypes.data for each in segments if len(each)}
    assert weight.data_ptr() in addresses


def test_equal_small_constants_and_tied_weights_share_a_buffer() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 4))
    weight = random_float(4, 4)
    first, second = graph.stored("first", weight), graph.stored("second", weight)
    copied = graph.stored("copied", weight.clone())
    for stored in (first, second, copied):
        x = graph.call(tfl.fully_connected, x, stored, None)
    model = contents_of(graph.finish(x)).model
    constants = [each for each in model.main.tensors if each.is_constant]
    assert [(each.name, each.buffer) for each in constants] == [("first", 1), ("copied", 1)]


def test_tuples_become_shared_int32_constants() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(2, 3))
    for shape in ((3, 2), (6, 1), (3, 2)):
        x = graph.call(tfl.reshape, x, shape)
    model = contents_of(graph.finish(x)).model
    constants = [each for each in model.main.tensors if each.is_constant]
    assert [(each.name, each.dtype, each.shape) for each in constants] == [
        ("const/3_2", "int32", (2,)),
        ("const/6_1", "int32", (2,)),
    ]


def test_versions_codes_and_options() -> None:
    model = read_bytes(b"".join(serialize(int8_net())))
    found = {each.name: each for each in model.main.operators}
    assert {name: each.version for name, each in found.items()} == {
        "CONV_2D": 3,
        "DEPTHWISE_CONV_2D": 3,
        "ADD": 2,
        "MEAN": 2,
        "FULLY_CONNECTED": 4,
    }
    options = found["CONV_2D"].options
    assert options is not None
    assert options.fields["padding"] == "SAME"
    assert options.fields["stride_h"] == 2
    assert options.fields["fused_activation_function"] == "RELU6"
    assert model.metadata["min_runtime_version"].rstrip(b"\0") == b"1.14.0"
    assert model.description.startswith("fxquant")


def test_scales_have_as_many_zero_points_and_their_axis() -> None:
    tensors = {each.name: each for each in contents_of(int8_net()).model.main.tensors}
    weight = tensors["deep_weight"].quantization
    assert weight is not None
    assert (len(weight.scale), len(weight.zero_point), weight.axis) == (8, 8, 3)


def test_codes_above_127_are_written_in_the_wide_field() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 8))
    data = b"".join(serialize(graph.finish(graph.call(tfl.gelu, x))))
    code = tflite.Model.GetRootAs(data, 0).OperatorCodes(0)
    assert (code.DeprecatedBuiltinCode(), code.BuiltinCode()) == (127, tflite.BuiltinOperator.GELU)


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_an_output_may_be_an_input_a_constant_or_stand_twice(kernels: Kernels) -> None:
    graph = HandGraph()
    x, y = graph.input("x", random_float(2, 3)), graph.input("y", random_float(2, 3))
    stored = graph.stored("table", random_float(2, 2))
    total = graph.call(tfl.add, x, y)
    net = graph.finish(total, x, stored, total)
    inputs = {"x": random_float(2, 3, seed=1).numpy(), "y": random_float(2, 3, seed=2).numpy()}
    found = LiteRT(serialize(net), kernels=kernels).run(inputs)
    assert list(found) == ["output_0", "output_1", "output_2", "output_3"]
    expected = net(*map(torch.from_numpy, inputs.values()))
    for value, wanted in zip(found.values(), expected, strict=True):
        np.testing.assert_array_equal(value, wanted.numpy())


def test_an_input_that_is_not_used_stays_an_input() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(2, 3))
    graph.input("unused", random_float(4))
    runtime = LiteRT(serialize(graph.finish(graph.call(tfl.relu, x))))
    assert list(runtime.inputs) == ["x", "unused"]
    runtime.run([random_float(2, 3).numpy(), random_float(4).numpy()])


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_a_dynamic_batch_is_minus_one_in_the_signature(kernels: Kernels) -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 4))
    weight = graph.stored("weight", random_float(3, 4))
    y = graph.call(tfl.fully_connected, x, weight, None)
    net = graph.finish(y)
    for node in net.graph.nodes:
        if node.op in ("placeholder", "call_function"):
            kind = node.meta["type"]
            node.meta["type"] = type(kind)((-1, *kind.shape[1:]), kind.dtype)
    data = b"".join(serialize(net))
    tensor = read_bytes(data).main.tensors[0]
    assert (tensor.shape, tensor.signature) == ((1, 4), (-1, 4))
    batch = random_float(7, 4)
    found = LiteRT(data, kernels=kernels).run({"x": batch.numpy()})["output"]
    np.testing.assert_allclose(found, net(batch)[0].numpy(), rtol=1e-5, atol=1e-6)


def test_names_are_unique() -> None:
    graph = HandGraph()
    x = graph.input("relu", random_float(2, 3))
    first = graph.call(tfl.relu, x)
    net = graph.finish(graph.call(tfl.add, first, graph.call(tfl.relu, first)))
    names = [each.name for each in contents_of(net).model.main.tensors]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dtype", sorted(set(DTYPE_CODES) - {"resource", "variant", "string"}))
def test_every_dtype_of_the_schema_has_a_code(dtype: str) -> None:
    assert DTYPE_CODES[dtype] >= 0


def test_all_refusals_come_in_one_error() -> None:
    graph = HandGraph()
    x = graph.input("x", random_int8(1, 8, 8, 4), QType("int8", 0.5, -3))
    weight = graph.constant("weight", random_int8(8, 3, 3, 4), (0.5,))
    bias = graph.constant("bias", torch.zeros(8, dtype=torch.int32), (0.25,))
    y = graph.call(tfl.conv_2d, x, weight, bias, out=QType("int8", 1e-4, 0))
    small = graph.input("small", random_int8(2, 3))
    z = graph.call(tfl.add, small, small)
    with pytest.raises(UnsupportedOp) as caught:
        serialize(graph.finish(y, z))
    text = str(caught.value)
    assert "tflite cannot run" in text
    assert "s_in * s_w / s_out must be below 256" in text
    assert "8-bit integers need scale and zero point" in text


def test_a_zero_point_outside_of_the_dtype_is_refused() -> None:
    graph = HandGraph()
    x = graph.input("x", random_int8(1, 4), QType("int8", 0.5, 300))
    with pytest.raises(UnsupportedOp, match="zero point 300 is outside of int8"):
        serialize(graph.finish(x))


def test_a_graph_of_another_dialect_is_refused() -> None:
    net = torch.fx.symbolic_trace(torch.nn.ReLU())
    with pytest.raises(InvalidGraph, match="has no type"):
        serialize(net)


def test_a_torch_function_of_the_same_name_is_no_operator() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(2, 3))
    with pytest.raises(InvalidGraph, match="is not an operator of the tfl dialect"):
        serialize(graph.finish(graph.call(torch.add, x, x)))


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert b"".join(serialize(int8_net())) == b"".join(serialize(int8_net()))


def test_one_input_cannot_have_two_meanings() -> None:
    graph = HandGraph()
    x = graph.input("x", random_int8(1, 4))
    first = graph.call(tfl.bind, x, out=QType("int8", 0.5, 0))
    second = graph.call(tfl.bind, x, out=QType("int8", 0.25, 0))
    with pytest.raises(InvalidGraph, match="two different quantizations"):
        serialize(graph.finish(first, second))


def test_scalar_results() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 1))
    net: GraphModule = graph.finish(graph.call(tfl.reshape, x, ()))
    for kernels in ALL_KERNELS:
        found = LiteRT(serialize(net), kernels=kernels).run([np.full((1, 1), 3, np.float32)])
        assert found["output"].shape == ()
        assert found["output"] == 3


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_row_can_be_written(name: str) -> None:
    row = ROWS[name]
    builtin = OPERATOR_NAMES[row.code]
    assert max([1, *row.versions.values()]) <= len(RELEASES[builtin].split())
    if row.table is not None:
        assert union_of(row.table) in (1, 2)
        for option in row.options:
            assert hasattr(tflite, f"{row.table}Add{camel(option.name)}")
