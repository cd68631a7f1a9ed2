"""insert-observers: one FakeQuantize per stored value, shared where the target shares."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule

from fxquant.ir.edit import get_attribute
from fxquant.ir.printer import format_graph
from fxquant.ir.validity import check_graph
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.settle import fake_quantizes
from fxquant.quant.spec import QuantSpec
from tests.conftest import Golden
from tests.passes.core_graphs import Builder, pooled_convolution
from tests.passes.quantized_graphs import prepared, stubbed


def places(graph_module: GraphModule) -> dict[str, str]:
    """Where each FakeQuantize stands: value -> the name of the module."""
    check_graph(graph_module)
    calls = fake_quantizes(graph_module)
    return {
        str(
            node.all_input_nodes[0].target
            if node.all_input_nodes[0].op == "get_attr"
            else node.all_input_nodes[0].name
        ): str(node.target).removeprefix("quantizers.")
        for node, _ in calls
    }


def module_at(graph_module: GraphModule, name: str) -> FakeQuantize:
    module = get_attribute(graph_module, f"quantizers.{name}")
    assert isinstance(module, FakeQuantize)
    return module


def image(b: Builder, name: str = "x") -> torch.fx.Node:
    return b.input(name, torch.randn(1, 4, 4, 4))


def test_insert_observers_before_and_after(golden: Golden) -> None:
    before, after = stubbed(pooled_convolution()), prepared(pooled_convolution())
    golden("insert_observers", format_graph(before) + "\n" + format_graph(after))


def test_nothing_changes_numerically_at_first() -> None:
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(prepared(pooled_convolution())(x)[0], pooled_convolution()(x)[0])


def test_none_between_an_operator_and_its_activation() -> None:
    b = Builder()
    x = image(b)
    found = places(prepared(b.finish(b("relu", b("add.Tensor", x, x)))))
    assert set(found) == {"x_quant", "relu"}


def test_none_behind_movers() -> None:
    b = Builder()
    found = places(
        prepared(b.finish(b("reshape", b("max_pool2d", b("relu", image(b)), [2]), [16])))
    )
    assert set(found) == {"x_quant", "relu"}


def test_same_parameters_are_one_module() -> None:
    b = Builder()
    found = places(prepared(b.finish(b("avg_pool2d", b("relu", image(b)), [2]))))
    assert found["avg_pool2d"] == found["relu"]


def test_a_concatenation_shares_one_module_also_through_movers() -> None:
    b = Builder()
    x = image(b)
    first, second = b("relu", x), b("max_pool2d", b("add.Tensor", x, x), [1])
    found = places(prepared(b.finish(b("cat", [first, second], 1))))
    assert found["relu"] == found["add"] == found["cat"]
    assert found["x_quant"] != found["relu"]


def test_concatenations_in_a_row_share_all() -> None:
    b = Builder()
    x = image(b)
    first = b("relu", x)
    once = b("cat", [first, b("add.Tensor", first, first)], 1)
    twice = b("cat", [once, b("mul.Tensor", first, first)], 1)
    found = places(prepared(b.finish(twice)))
    assert len({found[name] for name in ("relu", "add", "mul", "cat", "cat_1")}) == 1


def test_prescribed_parameters_are_fixed() -> None:
    b = Builder()
    graph_module = prepared(b.finish(b("sigmoid", image(b))))
    assert module_at(graph_module, "sigmoid").spec.fixed == (1 / 256, -128)


def test_prescribed_parameters_go_through_movers() -> None:
    b = Builder()
    moved = b("reshape", b("sigmoid", image(b)), [4, 16])
    graph_module = prepared(b.finish(b("avg_pool2d", b("reshape", moved, [1, 4, 4, 4]), [2])))
    assert places(graph_module)["avg_pool2d"] == "sigmoid"


def test_a_prescribed_value_is_quantized_again_where_it_must_share(golden: Golden) -> None:
    b = Builder()
    x = image(b)
    graph_module = prepared(b.finish(b("cat", [b("sigmoid", x), b("relu", x)], 1)))
    golden("insert_observers_requantize", format_graph(graph_module))


def test_prescribed_values_that_agree_are_not_quantized_again() -> None:
    b = Builder()
    graph_module = prepared(
        b.finish(b("cat", [b("sigmoid", image(b)), b("sigmoid", image(b, "y"))]))
    )
    found = places(graph_module)
    assert found["sigmoid"] == found["sigmoid_1"] == found["cat"]
    assert module_at(graph_module, found["cat"]).is_fixed


def test_a_symmetric_operand_makes_its_value_symmetric() -> None:
    b = Builder()
    x, y = b.input("x", torch.randn(2, 3)), b.input("y", torch.randn(3, 2))
    graph_module = prepared(b.finish(b("matmul", x, y)))
    assert module_at(graph_module, "y_quant").spec.symmetric
    assert not module_at(graph_module, "x_quant").spec.symmetric


def test_weights_are_per_channel_or_not() -> None:
    for per_channel, shape in ((True, (2,)), (False, ())):
        b = Builder(w=torch.randn(2, 4, 1, 1))
        config = QuantConfig(per_channel=per_channel)
        graph_module = prepared(b.finish(b("conv2d", image(b), b.get("w")), config=config))
        assert module_at(graph_module, "w").scale.shape == shape


def test_a_shared_weight_is_quantized_once() -> None:
    b = Builder(w=torch.randn(4, 4, 1, 1))
    w = b.get("w")
    graph_module = prepared(b.finish(b("conv2d", b("conv2d", image(b), w), w)))
    assert len([n for n, _ in fake_quantizes(graph_module) if n.args[0].op == "get_attr"]) == 1  # type: ignore[union-attr]


def test_a_constant_operand_is_a_constant_value() -> None:
    b = Builder(offset=torch.randn(4, 1, 1))
    graph_module = prepared(b.finish(b("add.Tensor", image(b), b.get("offset"))))
    module = module_at(graph_module, "offset")
    assert module.constant and module.spec.observer == "minmax" and not module.spec.symmetric


def test_a_constant_in_a_concatenation_is_observed_with_the_rest() -> None:
    b = Builder(token=torch.randn(1, 4, 4, 4))
    graph_module = prepared(b.finish(b("cat", [b.get("token"), b("relu", image(b))])))
    found = places(graph_module)
    assert found["token"] == found["relu"]
    assert not module_at(graph_module, found["relu"]).constant


def test_parts_are_values_of_the_whole() -> None:
    b = Builder()
    parts = b("split.Tensor", b("relu", image(b)), 2, 1)
    first, second = (b.call(operator.getitem, parts, i) for i in (0, 1))
    found = places(prepared(b.finish(b("cat", [second, first], 1))))
    assert found == {"x_quant": "x_quant", "relu": "relu", "cat": "relu"}


def test_returned_values_have_their_own_observer() -> None:
    b = Builder()
    inner = b("relu", image(b))
    graph_module = prepared(b.finish(b("reshape", b("add.Tensor", inner, inner), [64])))
    assert module_at(graph_module, "relu").spec.observer == "mse"
    assert module_at(graph_module, "add").spec.observer == "minmax"


def test_the_configuration_chooses_observers() -> None:
    b = Builder()
    config = QuantConfig(activations=QuantSpec("int8", observer="percentile"), outputs=None)
    graph_module = prepared(b.finish(b("relu", image(b)), config=config))
    assert {m.spec.observer for _, m in fake_quantizes(graph_module)} == {"percentile"}


def test_a_value_for_two_precisions_is_quantized_for_each() -> None:
    b = Builder()
    relu = b("relu", image(b))
    config = QuantConfig(rules=(Rule("int16x8", op="add"),))
    graph_module = prepared(
        b.finish(b("add.Tensor", relu, relu), b("sigmoid", relu), config=config)
    )
    dtypes = {m.spec.dtype for n, m in fake_quantizes(graph_module) if "relu" in n.name}
    assert dtypes == {"int8", "int16"}
    check_graph(graph_module)
