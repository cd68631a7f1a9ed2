"""An LSTM of float values and integer weights as one operator: near to the model and to LiteRT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import fxquant as fq
from fxquant.backends.base import Lowered

STEPS, BATCH, INPUTS, HIDDEN = 4, 2, 4, 5
NAME = "UNIDIRECTIONAL_SEQUENCE_LSTM"


class Layer(nn.Module):
    """An LSTM whose last step, all states and all outputs are read."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.lstm = nn.LSTM(INPUTS, HIDDEN, **options)

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.lstm(x, states or None)
        return y, y[:, -1], h, c


def flat(values: Any) -> Tensor:
    return torch.cat([value.reshape(-1) for value in tree_leaves(values)])


@torch.no_grad()
def noise(model: nn.Module, lowered: Lowered, data: list[Any]) -> float:
    """Signal to noise in dB, the last graph against the float model."""
    wanted = torch.cat([flat(model(*x)) for x in data])
    found = torch.cat([flat(lowered.graph_module(*x)) for x in data])
    return 20 * float((wanted.norm() / (found - wanted).norm()).log10())


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"batch_first": True}, False),
        ({"num_layers": 2}, False),
        ({"bidirectional": True, "batch_first": True, "bias": False}, False),
        ({"num_layers": 2, "bidirectional": True}, True),
    ],
    ids=["plain", "two layers", "both directions", "states"],
)
def test_a_layer(options: dict[str, Any], given: bool) -> None:
    """One operator a layer and direction; states go in and out; each call begins anew."""
    model = Layer(**options).eval()
    count = model.lstm.num_layers * (1 + model.lstm.bidirectional)
    size = (BATCH, STEPS, INPUTS) if model.lstm.batch_first else (STEPS, BATCH, INPUTS)
    states = (torch.randn(count, BATCH, HIDDEN), torch.randn(count, BATCH, HIDDEN))
    data = [(torch.randn(size), *(states if given else ())) for _ in range(3)]
    lowered = fq.compile(model, data[0], quantize="dynamic")
    assert lowered.report.operators[NAME] == count
    assert noise(model, lowered, data) > 40
    for kernels in ("reference", "optimized", "xnnpack"):
        fq.verify(lowered, data, kernels=kernels).check()


def test_its_file_is_a_fraction_of_that_of_the_steps() -> None:
    model = Layer(batch_first=True).eval()
    x = torch.randn(1, 16, INPUTS)
    whole = fq.compile(model, (x,), quantize="dynamic").report
    steps = fq.compile(model, (x,), quantize=fq.QuantConfig("dynamic", recurrent="unrolled")).report
    assert NAME not in steps.operators and whole.operators[NAME] == 1
    assert whole.size < steps.size / 3


def test_the_graph_computes_what_the_steps_compute() -> None:
    """The stage before the file's operators and the one after them."""
    model = Layer(batch_first=True, bidirectional=True).eval()
    x = torch.randn(BATCH, STEPS, INPUTS)
    steps = fq.quantize_dynamic(model, (x,))
    whole = fq.lower(steps, "tflite", instruments=["lint", "validate"])
    wanted, found = flat(steps(x)).detach(), flat(whole.graph_module(x)).detach()
    assert 20 * float((wanted.norm() / (found - wanted).norm()).log10()) > 40
