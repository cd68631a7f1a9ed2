"""LSTM, GRU and RNN layers in LiteRT: float against torch, int8 against the simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.interpreter import LiteRT
from fxquant.backends.tflite.serialize import serialize
from fxquant.errors import InputError, InvalidGraph
from fxquant.quant.config import Rule
from tests.backends.tflite.hand_graph import HandGraph

from .one_model import assert_close, flat

KINDS: dict[str, Callable[..., Any]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
STEPS, BATCH, INPUTS, HIDDEN = 6, 2, 4, 5


def layer(
    kind: str, layers: int, bidirectional: bool, batch_first: bool, bias: bool, given: bool
) -> tuple[nn.Module, tuple[Any, ...]]:
    """A layer and what it is called with; `given`: with states."""
    torch.manual_seed(layers)
    model = KINDS[kind](
        INPUTS, HIDDEN, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional
    ).eval()
    x = torch.randn(BATCH, STEPS, INPUTS) if batch_first else torch.randn(STEPS, BATCH, INPUTS)
    h, c = torch.randn(2, layers * (1 + bidirectional), BATCH, HIDDEN)
    states: Any = (h, c) if kind == "lstm" else h
    return model, (x, states) if given else (x,)


@torch.no_grad()
def run(lowered: Lowered, inputs: tuple[Any, ...], times: int = 1) -> list[Tensor]:
    """The outputs of the last of several calls of the file."""
    arrays = [x.numpy() for x in flat(inputs)]
    with LiteRT(lowered.to_bytes()) as runtime:
        for _ in range(times):
            found = [torch.tensor(y) for y in runtime.run(arrays).values()]
    return found


STEPPED = {"recurrent": "unrolled"}
COMBINATIONS = list(itertools.product(KINDS, (1, 2), *[(False, True)] * 4))


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: "-".join(map(str, c)))
def test_a_float_layer(combination: Any) -> None:
    model, inputs = layer(*combination)
    lowered = fq.compile(model, inputs, options=STEPPED)
    with torch.no_grad():
        wanted = flat(model(*inputs))
        assert_close(flat(lowered.graph_module(*inputs)), wanted, 1e-5, "the last graph")
    assert_close(run(lowered, inputs), wanted, 1e-5, "LiteRT")


FUSED = [row for row in COMBINATIONS if row[0] != "gru"]
NAMES = {"lstm": "UNIDIRECTIONAL_SEQUENCE_LSTM", "rnn": "UNIDIRECTIONAL_SEQUENCE_RNN"}


@pytest.mark.parametrize("combination", FUSED, ids=lambda c: "-".join(map(str, c)))
def test_a_layer_as_one_operator(combination: Any) -> None:
    """LiteRT's operators keep their state; the third call gives what the first one does."""
    kind, layers, bidirectional, *_ = combination
    model, inputs = layer(*combination)
    lowered = fq.compile(model, inputs, verify=False)
    assert lowered.report.operators[NAMES[kind]] == layers * (1 + bidirectional)
    with torch.no_grad():
        wanted = flat(model(*inputs))
        assert_close(flat(lowered.graph_module(*inputs)), wanted, 1e-5, "the last graph")
    assert_close(run(lowered, inputs), wanted, 1e-5, "the first call")
    assert_close(run(lowered, inputs, times=3), wanted, 1e-5, "the third call")


@pytest.mark.parametrize("kernels", ["reference", "optimized", "xnnpack"])
def test_the_state_is_written_and_read_around_delegated_operators(kernels: Any) -> None:
    """Operators that XNNPACK takes stand before, between and behind those that it does not."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(INPUTS, HIDDEN, batch_first=True)
            self.first, self.last = nn.Linear(3, HIDDEN), nn.Linear(HIDDEN, 2)

        def forward(self, x: Tensor, start: Tensor) -> tuple[Tensor, ...]:
            h = torch.relu(self.first(start)).unsqueeze(0)
            _, (_, c) = self.lstm(x, (h, h + 1.0))
            y, _ = self.lstm(x.tile(1, 2, 1), (c * 2.0, c))
            return self.last(y), x.tile(1, 1, 2), self.last(c[0] + c[0])

    inputs = (torch.randn(1, STEPS, INPUTS), torch.randn(1, 3))
    model = Mixed().eval()
    lowered = fq.compile(model, inputs)
    with LiteRT(lowered.to_bytes(), kernels=kernels) as runtime, torch.no_grad():
        for _ in range(3):
            found = [torch.tensor(y) for y in runtime.run([x.numpy() for x in inputs]).values()]
            assert_close(found, flat(model(*inputs)), 1e-5, kernels)
    fq.verify(lowered, [inputs, inputs], kernels=kernels).check()


def test_a_layer_without_an_operator_is_unrolled_all_the_same() -> None:
    model, inputs = layer("gru", 1, False, True, True, False)
    lowered = fq.compile(model, inputs)
    assert lowered.report.operators["FULLY_CONNECTED"] == STEPS
    with torch.no_grad():
        assert_close(run(lowered, inputs), flat(model(*inputs)), 1e-5, "LiteRT")


def test_an_option_that_means_nothing_is_refused() -> None:
    model, inputs = layer("gru", 1, False, True, True, False)
    with pytest.raises(InputError, match="recurrent='whole'"):
        fq.compile(model, inputs, options={"recurrent": "whole"})


def test_a_state_that_others_read_is_not_written() -> None:
    """The kernel overwrites the tensor, so nothing else may look at it."""
    graph = HandGraph()
    x, start = graph.input("x", torch.randn(3, 1, 2)), graph.input("h", torch.randn(1, 4))
    weights = [torch.randn(4, 2), torch.randn(4, 4), torch.randn(4)]
    stored = [graph.stored(f"w{n}", weight) for n, weight in enumerate(weights)]
    h = graph.call(tfl.tile, start, (1, 1))
    y = graph.call(tfl.unidirectional_sequence_rnn, x, *stored, h)
    with pytest.raises(InvalidGraph, match="must be computed for it alone"):
        serialize(graph.finish(y, graph.call(tfl.relu, h)))
    with pytest.raises(InvalidGraph, match="must be computed for it alone"):
        y = graph.call(tfl.unidirectional_sequence_rnn, x, *stored, start)
        serialize(graph.finish(y))


def test_every_call_begins_at_the_same_state() -> None:
    model, inputs = layer("lstm", 1, False, True, True, False)
    lowered = fq.compile(model, inputs)
    once, again = run(lowered, inputs), run(lowered, inputs, times=3)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


class Loop(nn.Module):
    """Cells called in a loop of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(INPUTS, HIDDEN), nn.GRUCell(HIDDEN, HIDDEN)
        self.rnn = nn.RNNCell(HIDDEN, HIDDEN, nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state, g = None, x.new_zeros(x.shape[1], HIDDEN)
        for step in x:
            h, c = self.lstm(step, state)
            state = h, c
            g = self.gru(h, g)
        result: Tensor = self.rnn(g)
        return result, c


def test_cells() -> None:
    torch.manual_seed(0)
    model, x = Loop().eval(), torch.randn(STEPS, BATCH, INPUTS)
    lowered = fq.compile(model, (x,))
    with torch.no_grad():
        assert_close(run(lowered, (x,)), flat(model(x)), 1e-5, "LiteRT")


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=True, proj_size=3).eval()
    x = torch.randn(STEPS, BATCH, INPUTS)
    lowered = fq.compile(model, (x,))
    with torch.no_grad():
        assert_close(run(lowered, (x,)), flat(model(x)), 1e-5, "LiteRT")


def test_weights_are_stored_once_whatever_the_number_of_steps() -> None:
    def sizes(steps: int) -> tuple[int, int]:
        model = nn.LSTM(16, 64, batch_first=True).eval()
        x = torch.randn(1, steps, 16)
        report = fq.compile(model, (x,), options=STEPPED).report
        assert report.size is not None
        return report.size, sum(report.operators.values())

    (short, few), (long, many) = sizes(8), sizes(28)
    weights = 4 * 4 * 64 * (16 + 64 + 2)
    assert weights < short < long < 1.5 * weights
    assert (many - few) / 20 == 12, "operators for each step"


# -- int8 ------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A recurrent layer and a head."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = KINDS[kind](INPUTS, HIDDEN, batch_first=True, **options)
        self.head = nn.Linear(HIDDEN * (1 + self.layer.bidirectional), 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.layer(x)[0])
        return result


UNROLLED = fq.QuantConfig(recurrent="unrolled")

QUANTIZED: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {},
    "rnn": {},
    "rnn relu": {"nonlinearity": "relu"},
    "lstm two layers": {"num_layers": 2},
    "gru both directions": {"bidirectional": True},
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_an_int8_layer(name: str) -> None:
    """No float operator is left, the file gives the graph's bytes, and it is near the model."""
    model = Tagger(name.split()[0], **QUANTIZED[name]).eval()
    samples = [(torch.randn(1, STEPS, INPUTS),) for _ in range(24)]
    lowered = fq.compile(
        model, samples[0], quantize=UNROLLED, calibration=samples, progress=False, io_dtype="int8"
    )
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(lowered.report.operators)
    probes = [(torch.randint(-128, 128, (1, STEPS, INPUTS), dtype=torch.int8),) for _ in range(3)]
    fq.verify(lowered, probes, kernels="reference").check()


@pytest.mark.parametrize(("kind", "least"), [("lstm", 25), ("gru", 25), ("rnn", 25)])
def test_int8_states_stay_near_the_model(kind: str, least: float) -> None:
    """The defect that others have (2 dB for a GRU) does not come back."""
    model = Tagger(kind).eval()
    samples = [(torch.randn(1, STEPS, INPUTS),) for _ in range(24)]
    lowered = fq.compile(model, samples[0], quantize=UNROLLED, calibration=samples, progress=False)
    probes = [torch.randn(1, STEPS, INPUTS) for _ in range(8)]
    with torch.no_grad():
        wanted = torch.cat([model(x) for x in probes])
    found = torch.cat([run(lowered, (x,))[0] for x in probes])
    ratio = wanted.norm() / (found - wanted).norm()
    assert 20 * float(ratio.log10()) > least


@pytest.mark.parametrize("wide", ["split", "split gates", "i f g o c kept new bent h", "c"])
def test_parts_of_sixteen_bits(wide: str) -> None:
    """The parts of a split are cast where the split is, not one by one."""
    rules = tuple(Rule(node=f"layer_l0_{part}_*", precision="int16x8") for part in wide.split())
    model = Tagger("lstm").eval()
    samples = [(torch.randn(1, STEPS, INPUTS),) for _ in range(8)]
    lowered = fq.compile(
        model,
        samples[0],
        quantize=fq.QuantConfig(rules=rules),
        calibration=samples,
        progress=False,
    )
    fq.verify(lowered, samples[:2], kernels="reference").check()
    found = run(lowered, samples[0])[0]
    with torch.no_grad():
        wanted = model(*samples[0])
    assert float((found - wanted).norm() / wanted.norm()) < 0.1


def test_a_float_operator_between_integer_layers() -> None:
    model = Tagger("lstm", bidirectional=True).eval()
    samples = [(torch.randn(1, STEPS, INPUTS),) for _ in range(8)]
    lowered = fq.compile(
        model,
        samples[0],
        quantize=fq.QuantConfig(keep_float=("lstm",)),
        calibration=samples,
        progress=False,
    )
    assert lowered.report.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
    for kernels in ("reference", "xnnpack"):
        fq.verify(lowered, samples[:2], kernels=kernels).check()


def test_states_go_in_and_out_of_an_int8_file() -> None:
    class Streaming(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(INPUTS, HIDDEN, batch_first=True)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y, (h, c) = self.lstm(x, (h, c))
            return y, h, c

    model = Streaming().eval()
    data = torch.randn(16, 1, STEPS, INPUTS)
    h, c = torch.zeros(2, 1, 1, HIDDEN)
    samples = []
    for x in data:
        samples.append((x, h, c))
        _, h, c = (value.detach() for value in model(x, h, c))
    lowered = fq.compile(model, samples[0], quantize="int8", calibration=samples, progress=False)
    fq.verify(lowered, samples[:3], kernels="reference").check()
    found = wanted = samples[0]
    for x in data[:6]:
        found = (x, *run(lowered, (x, *found[1:]))[1:])
        wanted = (x, *(value.detach() for value in model(x, *wanted[1:])[1:]))
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert float((one - other).norm() / other.norm()) < 0.1
