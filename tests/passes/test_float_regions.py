"""Precisions that compute in float: what annotate decides, what freezing leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Node

import fxquant as fq
from fxquant.errors import ConfigError
from fxquant.ir.printer import format_graph
from fxquant.ir.state import state_of
from fxquant.passes.freeze import Freeze
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.constraints import ConstraintTable, Row, WeightForms, explain
from tests.conftest import Golden
from tests.passes.core_graphs import TABLE, Builder
from tests.passes.quantized_graphs import annotated, prepared

FORMS = WeightForms(
    static=("int8",),
    dynamic=("int8",),
    stored=("int8", "int4", "float16"),
    reasons=(("dynamic int4", "the toy has no nibbles"),),
)


def target() -> ConstraintTable:
    """The toy target, its convolution with weight forms."""
    row = TABLE.rows["conv2d"]
    assert isinstance(row, Row)
    return replace(TABLE, rows={**TABLE.rows, "conv2d": replace(row, weights=FORMS)})


def graph(precision: str, *rules: Rule) -> GraphModule:
    """relu(conv2d(x)) reshaped, and exp of it."""
    torch.manual_seed(0)
    b = Builder(w=torch.randn(2, 3, 1, 1), b=torch.randn(2))
    x = b.input("x", torch.randn(1, 3, 4, 4))
    relu = b("relu", b("conv2d", x, b.get("w"), b.get("b")))
    graph_module = b.finish(
        b("exp", b("reshape", relu, [1, 32])), config=QuantConfig(precision, rules=rules)
    )
    state_of(graph_module).constraints = target()
    return graph_module


def frozen(graph_module: GraphModule) -> GraphModule:
    return Pipeline((Freeze(),))(prepared(graph_module))


def decisions(graph_module: GraphModule) -> dict[str, str]:
    return {name: str(each) for name, each in explain(annotated(graph_module)).items()}


def called(graph_module: GraphModule) -> list[str]:
    return [str(node.target) for node in graph_module.graph.nodes if node.op == "call_function"]


def test_dynamic_before_and_after(golden: Golden) -> None:
    golden("dynamic", format_graph(frozen(graph("dynamic"))))


def test_bfloat16_before_and_after(golden: Golden) -> None:
    golden("bfloat16", format_graph(frozen(graph("bfloat16"))))


def test_stored_weights_before_and_after(golden: Golden) -> None:
    texts = [format_graph(frozen(graph(name))) for name in ("int4_weights", "float16")]
    golden("stored_weights", "\n".join(texts))


def test_only_layers_with_weights_become_dynamic() -> None:
    found = decisions(graph("dynamic"))
    assert found["conv2d"] == "dynamic"
    assert found["relu"] == found["exp"] == "float32: has no weights to store narrow"


def test_what_has_no_weights_is_no_news() -> None:
    graph_module = annotated(graph("dynamic"))
    assert state_of(graph_module).stayed_float == ()


def test_a_rule_for_what_has_no_weights_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"op=exp -> dynamic .*: has no weights to store narrow"):
        annotated(graph("float32", Rule(op="exp", precision="dynamic")))


def test_the_next_wider_precision_is_taken_and_said() -> None:
    graph_module = annotated(graph("dynamic4"))
    found = {name: str(each) for name, each in explain(graph_module).items()}
    assert found["conv2d"] == "dynamic instead of dynamic4: the toy has no nibbles"
    assert state_of(graph_module).notes["annotate"] == [
        "1 conv2d: dynamic instead of dynamic4, the toy has no nibbles"
    ]


def test_integers_of_4_bits_beside_int8_fall_back_to_int8() -> None:
    found = decisions(graph("int8w4"))
    assert found["relu"] == "int8w4"
    assert found["conv2d"].startswith("int8 instead of int8w4: there is no static form")


def test_every_value_of_a_rounded_graph_is_bfloat16() -> None:
    graph_module = frozen(graph("bfloat16"))
    nodes = {node.name: node for node in graph_module.graph.nodes}
    assert explain(graph_module)["conv2d"].fused_into == "relu"
    env: dict[str, torch.Tensor] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> object:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                env[n.name] = result
            return result

    Recorder(graph_module).run(torch.randn(1, 3, 4, 4))
    for name in ("x_q", "w_q", "relu_q", "reshape", "exp_q"):
        assert name in nodes
        assert torch.equal(env[name], env[name].to(torch.bfloat16).float())


def test_a_prepared_graph_changes_nothing_until_it_is_switched_on() -> None:
    graph_module = graph("bfloat16")
    x = torch.randn(1, 3, 4, 4)
    (wanted,) = graph_module(x)
    (found,) = prepared(graph_module)(x)
    assert torch.equal(found, wanted)


def test_values_beyond_float16_are_clamped_only_where_there_are_some() -> None:
    assert not any("clamp" in each for each in called(frozen(graph("float16"))))
    b = Builder(w=torch.full((2, 3, 1, 1), 1e6))
    x = b.input("x", torch.randn(1, 3, 4, 4))
    graph_module = b.finish(b("conv2d", x, b.get("w")), config=QuantConfig("float16"))
    state_of(graph_module).constraints = target()
    after = frozen(graph_module)
    assert sum("clamp" in each for each in called(after)) == 1
    assert after(torch.ones(1, 3, 4, 4))[0].max() == 3 * 65504.0


def test_integer_regions_and_dynamic_ones_live_side_by_side() -> None:
    b = Builder(w=torch.randn(2, 3, 1, 1))
    x = b.input("x", torch.randn(1, 3, 4, 4))
    y = b("conv2d", b("sigmoid", x), b.get("w"))
    graph_module = b.finish(y, config=QuantConfig(rules=(Rule(op="conv2d", precision="dynamic"),)))
    state_of(graph_module).constraints = target()
    text = format_graph(prepared(graph_module))
    assert "%sigmoid_dequant = dequant" in text
    assert "fake_quantize<int8 dynamic> @quantizers.sigmoid_dequant(%sigmoid_dequant)" in text


def test_a_net_trains_in_bfloat16_and_freezes_to_what_was_trained() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3)
    )
    x, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 3
    training = fq.prepare_qat(model.train(), (x[:1],), QuantConfig("bfloat16"))
    optimizer = torch.optim.SGD(training.parameters(), 0.1)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(training(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    training.eval()
    with torch.no_grad():
        wanted, found = training(x[:1]), fq.convert(training)(x[:1])
    assert torch.equal(found, found.bfloat16().float())
    assert (found - wanted).abs().max() <= wanted.abs().max() / 64
