"""Recurrent layers written out: text before and after, and every combination against torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

import fxquant as fq
from fxquant.errors import TraceError
from fxquant.ir.printer import format_graph
from fxquant.ir.recurrent import recurrent
from fxquant.passes.functionalize import Functionalize
from fxquant.passes.instruments import Lint, instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.unroll_recurrent import UnrollRecurrent
from fxquant.passes.validation import Validate
from fxquant.quant.config import Rule
from fxquant.quant.settle import fake_quantizes
from fxquant.tracing import trace
from tests.conftest import Golden


class Layer(NamedTuple):
    """A recurrent layer and what it is called with."""

    model: nn.Module
    inputs: tuple[Any, ...]


def layer(
    kind: Callable[..., nn.Module],
    *,
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    bias: bool = True,
    given: bool = False,
    **more: Any,
) -> Layer:
    """Five steps of a batch of two; `given`: with states."""
    torch.manual_seed(0)
    options = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, **more}
    model = kind(4, 6, batch_first=batch_first, **options)
    x = torch.randn(2, 5, 4) if batch_first else torch.randn(5, 2, 4)
    if not given:
        return Layer(model.eval(), (x,))
    count = layers * (1 + bidirectional)
    h = torch.randn(count, 2, more.get("proj_size") or 6)
    states = (h, torch.randn(count, 2, 6)) if kind is nn.LSTM else h
    return Layer(model.eval(), (x, states))


KINDS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
FLAGS = ("bidirectional", "batch_first", "bias", "given")


def combinations() -> list[Any]:
    """Every kind, one and two layers, and all flags."""
    flags = list(itertools.product((False, True), repeat=len(FLAGS)))
    return [
        pytest.param(
            kind,
            {"layers": layers, **dict(zip(FLAGS, given, strict=True))},
            id="-".join([kind, str(layers), *itertools.compress(FLAGS, given)]),
        )
        for kind, layers, given in itertools.product(KINDS, (1, 2), flags)
    ]


def unrolled(model: nn.Module, inputs: tuple[Any, ...]) -> GraphModule:
    core = Pipeline.default("float")(trace(model, inputs))
    with instruments(Lint()):
        return Pipeline((UnrollRecurrent(),))(core)


def assert_same(graph_module: GraphModule, found: Layer) -> None:
    wanted, got = tree_leaves(found.model(*found.inputs)), tree_leaves(graph_module(*found.inputs))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "options"), combinations())
def test_every_combination_computes_the_same(kind: str, options: dict[str, Any]) -> None:
    found = layer(KINDS[kind], **options)
    graph_module = unrolled(*found)
    assert not any(recurrent(node) for node in graph_module.graph.nodes)
    assert_same(graph_module, found)


MORE = {
    "relu": layer(nn.RNN, nonlinearity="relu"),
    "projected": layer(nn.LSTM, layers=2, bidirectional=True, given=True, proj_size=3),
    "without a batch": Layer(nn.GRU(4, 6).eval(), (torch.randn(5, 4),)),
    "one step": Layer(nn.LSTM(4, 6).eval(), (torch.randn(1, 2, 4),)),
    "lstm cell": Layer(nn.LSTMCell(4, 6).eval(), (torch.randn(2, 4),)),
    "lstm cell with states": Layer(
        nn.LSTMCell(4, 6, bias=False).eval(),
        (torch.randn(2, 4), (torch.randn(2, 6), torch.randn(2, 6))),
    ),
    "gru cell": Layer(nn.GRUCell(4, 6).eval(), (torch.randn(2, 4), torch.randn(2, 6))),
    "rnn cell": Layer(nn.RNNCell(4, 6, nonlinearity="relu").eval(), (torch.randn(4),)),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", MORE)
def test_other_forms_compute_the_same(name: str) -> None:
    assert_same(unrolled(*MORE[name]), MORE[name])


def test_the_text_before_and_after(golden: Golden) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3, batch_first=True)
            self.gru = nn.GRU(3, 3, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y, _ = self.lstm(x)
            z, h = self.gru(y)
            return z[:, -1], h

    core = Pipeline.default("float")(trace(Both().eval(), (torch.randn(1, 2, 4),)))
    with instruments(Validate(), Lint()):
        after = Pipeline((UnrollRecurrent(),))(core)
    golden("unroll-recurrent", f"{format_graph(core)}\n{format_graph(after)}")


def test_a_reader_of_one_step_reads_it_directly() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y, (h, c) = self.lstm(x)
            result: Tensor = y[:, -1] + torch.cat((h[-2], c[3]), -1)
            return result

    found = Layer(Last().eval(), (torch.randn(2, 5, 4),))
    graph_module = unrolled(*found)
    text = format_graph(graph_module)
    assert "select" not in text
    assert text.count("= stack(") == 2, "only the first layer's outputs are put together"
    assert_same(graph_module, found)


def test_dropout_between_layers_follows_the_mode() -> None:
    model = nn.LSTM(4, 6, 3, dropout=0.5).train()
    core = Pipeline((Functionalize(),))(trace(model, (torch.randn(5, 2, 4),)))
    after = Pipeline((UnrollRecurrent(),))(core)
    assert sum(isinstance(each, nn.Dropout) for each in after.modules()) == 2
    x = torch.randn(5, 2, 4)
    assert not torch.equal(after.train()(x)[0], after(x)[0])
    torch.testing.assert_close(after.eval()(x)[0], model.eval()(x)[0], rtol=1e-5, atol=1e-6)


def test_the_parameters_keep_their_names() -> None:
    found = layer(nn.LSTM, layers=2, bidirectional=True)
    graph_module = unrolled(*found)
    assert set(dict(graph_module.named_parameters())) == set(dict(found.model.named_parameters()))
    reads = [n for n in graph_module.graph.nodes if n.target == "weight_hh_l0"]
    assert len(reads) == 1, "all steps read one weight"


def test_packed_sequences_are_refused_with_the_line_and_what_to_do() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, [5, 3], batch_first=True)
            h: Tensor = self.lstm(packed)[1][0]
            return h

    with pytest.raises(TraceError) as caught:
        trace(Packed(), (torch.randn(2, 5, 4),))
    text = str(caught.value)
    assert "test_unroll_recurrent.py" in text and "pack_padded_sequence(x, [5, 3]" in text
    assert "padded batch" in text


# -- quantized ---------------------------------------------------------------------------------


class Tagger(nn.Module):
    """An LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.lstm(x)[0])
        return result


UNROLLED = fq.QuantConfig(recurrent="unrolled")


def prepared(steps: int, config: fq.QuantConfig = UNROLLED) -> GraphModule:
    return fq.prepare(Tagger().eval(), (torch.randn(1, steps, 4),), config)


def test_all_steps_share_their_grids() -> None:
    counts = {n: len({id(m) for _, m in fake_quantizes(prepared(n))}) for n in (3, 12)}
    assert counts[3] == counts[12]
    graph_module = prepared(5)
    paths = {n.name: n.target for n in graph_module.graph.nodes if n.op == "call_module"}
    for name in ("h", "c", "gates", "i", "f", "g", "o", "u"):
        used = {paths[f"lstm_l0_{name}_{step}_fq"] for step in (2, 3)}
        assert len(used) == 1, name
    assert paths["lstm_l0_c_2_fq"] != paths["lstm_l0_h_2_fq"]


def test_quantized_steps_are_near_the_float_layer() -> None:
    model, samples = Tagger().eval(), [torch.randn(1, 8, 4) for _ in range(16)]
    graph_module = fq.prepare(model, (samples[0],), UNROLLED)
    fq.calibrate(graph_module, samples, progress=False)
    frozen = fq.convert(graph_module)
    assert not fq.api.stayed_float(frozen)
    x = torch.cat([torch.randn(1, 8, 4) for _ in range(8)])
    with torch.no_grad():
        wanted = torch.cat([model(part) for part in x.split(1)])
        found = torch.cat([frozen(part) for part in x.split(1)])
    noise = float((found - wanted).norm() / wanted.norm())
    assert noise < 10 ** (-25 / 20), "25 dB"


@pytest.mark.parametrize(
    "config",
    [
        fq.QuantConfig(keep_float=("lstm",)),
        fq.QuantConfig(rules=(Rule(op="lstm", precision="float32"),)),
    ],
    ids=["kept", "operator"],
)
def test_a_layer_that_stays_in_float_stays_whole(config: fq.QuantConfig) -> None:
    assert "= lstm(" in format_graph(prepared(3, config))


def test_rules_reach_the_parts_by_the_name_of_the_whole_or_their_own() -> None:
    other = fq.QuantConfig(
        precision="float32",
        rules=(
            Rule(op="lstm", precision="int8"),
            Rule(node="lstm_l0_c_*", precision="float32"),
        ),
    )
    found = {
        node.name: str(node.meta["annotation"].precision)
        for node in prepared(3, other).graph.nodes
        if "annotation" in node.meta
    }
    assert found["lstm_l0_u_1"] == found["lstm_l0_h_1"] == "int8"
    assert found["lstm_l0_c_1"] == found["head"] == "float32"


def test_cells_called_in_a_loop_share_their_grids_too() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(x.shape[1], 5)
            for step in x:
                h = self.cell(step, h)
            return h

    graphs = [fq.prepare(Loop().eval(), (torch.randn(steps, 1, 4),)) for steps in (3, 9)]
    few, many = (len({id(m) for _, m in fake_quantizes(each)}) for each in graphs)
    assert few == many


def test_the_cell_state_can_have_sixteen_bits() -> None:
    """The products, the sum that is the state, and one cast for all steps at each edge."""
    wide = Rule(precision="int16x8", callable="fxquant.passes.recurrent.cells:holds_cell_state")
    model, samples = Tagger().eval(), [torch.randn(1, 24, 4) for _ in range(12)]
    model.get_parameter("lstm.bias_hh_l0").data[6:12] += 4  # it forgets little
    errors, casts = {}, {}
    for name, rules in {"int8": (), "wide": (wide,)}.items():
        config = replace(UNROLLED, rules=rules)
        graph_module = fq.prepare(model, (samples[0],), config)
        casts[name] = len({id(module) for _, module in fake_quantizes(graph_module)})
        found = {
            node.name: str(node.meta["annotation"].precision)
            for node in graph_module.graph.nodes
            if "annotation" in node.meta
        }
        wanted = "int8" if name == "int8" else "int16x8"
        assert [found[f"lstm_l0_{part}_2"] for part in ("kept", "new", "c")] == [wanted] * 3
        assert found["lstm_l0_bent_2"] == found["lstm_l0_h_2"] == "int8"
        fq.calibrate(graph_module, samples, progress=False)
        frozen = fq.convert(graph_module)
        with torch.no_grad():
            pairs = [(frozen(x), model(x)) for x in samples]
        errors[name] = sum(float((a - b).norm()) for a, b in pairs)
    assert errors["wide"] < 0.8 * errors["int8"]
    assert casts["wide"] - casts["int8"] == 4, "i, f and g to int16, c back to int8"


def test_training_with_quantizers_trains_the_layers_own_weights() -> None:
    model = Tagger()
    trained = fq.prepare_qat(model, (torch.randn(1, 6, 4),))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    x, wanted = torch.randn(8, 6, 4), torch.randn(8, 6, 3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = (trained(x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    weight = trained.get_parameter("lstm.weight_hh_l0")
    assert weight.grad is not None and not torch.equal(
        weight, model.get_parameter("lstm.weight_hh_l0")
    )
    frozen = fq.convert(trained.eval())
    torch.testing.assert_close(frozen(x[:1]), trained(x[:1]), rtol=0, atol=0.1)
