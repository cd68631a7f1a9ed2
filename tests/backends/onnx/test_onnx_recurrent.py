"""LSTM, GRU and RNN layers in ONNX Runtime: one operator a layer in float, unrolled in int8."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import fxquant as fq
from tests.backends.onnx.runtime_checks import (
    Function,
    assert_close,
    check,
    check_int8,
    run_file,
)

KINDS: dict[str, Callable[..., nn.Module]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "relu": "RNN"}
COMBINATIONS = list(itertools.product(KINDS, (1, 2), *[(False, True)] * 4))


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: "-".join(map(str, c)))
def test_a_float_layer_is_one_operator(combination: Any) -> None:
    kind, layers, bidirectional, batch_first, bias, given = combination
    torch.manual_seed(layers)
    layer = KINDS[kind](
        4, 5, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias
    )
    x = torch.randn(2, 6, 4) if batch_first else torch.randn(6, 2, 4)
    states = [torch.randn(layers * (1 + bidirectional), 2, 5) for _ in range(1 + (kind == "lstm"))]

    def called(x: Tensor, *states: Tensor) -> Any:
        if not states:
            return layer(x)
        return layer(x, states if len(states) > 1 else states[0])

    model = Function(called)
    model.layer = layer
    lowered = check(model, x, *(states if given else ()))
    assert lowered.report.operators[OPERATORS[kind]] == layers


def test_cells_and_projections_are_written_step_by_step() -> None:
    lowered = check(nn.LSTMCell(4, 5), torch.randn(2, 4))
    assert "LSTM" not in lowered.report.operators
    check(nn.GRUCell(4, 5), torch.randn(2, 4), torch.randn(2, 5))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection() -> None:
    torch.manual_seed(0)
    check(nn.LSTM(4, 5, 2, proj_size=3), torch.randn(6, 2, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_int8_layers_are_unrolled(kind: str) -> None:
    torch.manual_seed(0)
    lowered = check_int8(KINDS[kind](4, 5), torch.randn(4, 1, 4))
    assert OPERATORS[kind] not in lowered.report.operators


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_writes_the_operator(precision: str) -> None:
    options = {"precision": precision}
    layer = nn.GRU(4, 5).eval()
    lowered = fq.compile(layer, (torch.randn(3, 1, 4),), backend="onnx", options=options)
    assert lowered.report.operators["GRU"] == 1


def test_any_batch_and_any_number_of_steps() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True).eval()
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("steps")}
    lowered = fq.compile(
        layer, (torch.randn(2, 6, 4),), backend="onnx", dynamic_shapes=(sizes,), verify=False
    )
    for shape in ((1, 3, 4), (3, 9, 4)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert_close(run_file(lowered, x), tree_leaves(layer(x)), 1e-5, "ONNX Runtime")
