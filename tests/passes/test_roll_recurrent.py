"""Steps that become one operator again: text before and after, and what keeps them apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import ConfigError
from fxquant.ir.aten import aten
from fxquant.ir.printer import format_graph
from fxquant.ir.state import state_of
from fxquant.passes.recurrent.whole import layers_of
from fxquant.passes.roll_recurrent import ROLLED, ROLLED_DYNAMIC, RollRecurrent
from fxquant.quant.config import Rule
from fxquant.quant.settle import fake_quantizes
from tests.conftest import Golden


class Reader(nn.Module):
    """An LSTM of which all steps, one step and the last state are read."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(2, 3, batch_first=True, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, _) = self.lstm(x)
        return y, y[:, 1], h[-1]


SAMPLES = [torch.linspace(-1, 1, 6).reshape(1, 3, 2) * sign for sign in (1.0, -0.5)]


def prepared(config: fq.QuantConfig | None = None, **options: Any) -> GraphModule:
    graph_module = fq.prepare(Reader(**options).eval(), (SAMPLES[0],), config)
    fq.calibrate(graph_module, SAMPLES, progress=False)
    return graph_module


def frozen(config: fq.QuantConfig | None = None, **options: Any) -> GraphModule:
    return fq.convert(prepared(config, **options))


def rolled(graph_module: GraphModule) -> int:
    return len([node for node in graph_module.graph.nodes if node.target is ROLLED])


def test_before_and_after(golden: Golden) -> None:
    graph_module = frozen()
    before = format_graph(graph_module)
    RollRecurrent().run(graph_module)
    golden("roll-recurrent", f"{before}\n{format_graph(graph_module)}")


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}])
def test_it_computes_the_same(options: dict[str, Any]) -> None:
    steps, whole = frozen(**options), frozen(**options)
    RollRecurrent().run(whole)
    assert rolled(whole) == options.get("num_layers", 1) * (1 + options.get("bidirectional", 0))
    x = torch.randn(1, 3, 2)
    for found, wanted in zip(whole(x), steps(x), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
def test_a_dynamic_layer_computes_the_same(options: dict[str, Any]) -> None:
    model = Reader(**options).eval()
    steps, whole = (fq.quantize_dynamic(model, (SAMPLES[0],)) for _ in range(2))
    assert RollRecurrent().run(whole).modified
    targets = [node.target for node in whole.graph.nodes]
    assert targets.count(ROLLED_DYNAMIC) == 1 + options.get("bidirectional", 0)
    x = torch.randn(1, 3, 2)
    for found, wanted in zip(whole(x), steps(x), strict=True):
        torch.testing.assert_close(found, wanted)


def test_only_the_states_are_observed() -> None:
    names = {str(node.target).removeprefix("quantizers.") for node, _ in fake_quantizes(prepared())}
    assert names == {
        "lstm_weight_ih_l0",
        "lstm_weight_hh_l0",
        "x_quant",
        "lstm_l0_h0",
        "lstm_l0_c_0",
    }
    modules = {str(node.target): module for node, module in fake_quantizes(prepared())}
    cell, weight = modules["quantizers.lstm_l0_c_0"], modules["quantizers.lstm_weight_hh_l0"]
    assert float(cell.scale.log2()) % 1 == 0 and cell.spec.dtype == "int16"
    assert len(set(weight.scale.tolist())) == 4


@pytest.mark.parametrize(
    "config",
    [
        fq.QuantConfig(recurrent="unrolled"),
        fq.QuantConfig(rules=(Rule(node="lstm_l0_c_*", precision="float32"),)),
        fq.QuantConfig("int16x8"),
        fq.QuantConfig("dynamic4"),
    ],
    ids=["unrolled", "part in float", "16 bits", "dynamic, 4 bits"],
)
def test_a_layer_of_other_parts_is_steps(config: fq.QuantConfig) -> None:
    graph_module = fq.prepare(Reader().eval(), (SAMPLES[0],), config)
    assert not layers_of(graph_module)


def test_a_layer_in_which_something_was_changed_stays() -> None:
    graph_module = frozen()
    product = next(n for n in graph_module.graph.nodes if n.name == "lstm_l0_c_1_q")
    product.replace_all_uses_with(product.args[0])
    assert not RollRecurrent().run(graph_module).modified
    note = "lstm_l0 is written step by step, as its states are not rounded at every step"
    assert state_of(graph_module).notes["roll-recurrent"] == [note]


def test_weights_with_a_scale_a_row_stay_steps() -> None:
    graph_module = frozen()
    name = "lstm_weight_hh_l0_scale"
    setattr(graph_module, name, graph_module.get_buffer(name) * torch.linspace(1, 2, 12))
    assert not RollRecurrent().run(graph_module).modified
    assert any(n.target is aten.split_with_sizes.default for n in graph_module.graph.nodes)


def test_a_word_that_means_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="recurrent layers cannot be written 'whole'"):
        fq.QuantConfig(recurrent="whole")
