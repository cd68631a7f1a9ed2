"""The pass as a whole: goldens, decompositions, errors, borders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fxquant.backends.tflite.legalize import LegalizeTflite
from fxquant.errors import UnsupportedOp
from fxquant.ir.printer import format_graph
from fxquant.ir.state import state_of
from fxquant.passes.pipeline import Pipeline
from tests.conftest import Golden

from .cases import Case, case, each, normal
from .one_model import TAIL, check, legalized, quantized_core, run


class Block(nn.Module):
    """A residual block with a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3, 2, 1)
        self.conv2 = nn.Conv2d(4, 4, 3, 1, 1, groups=4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.conv1(x))
        x = functional.relu(x + self.conv2(x))
        pooled: Tensor = self.head(x.mean((2, 3)))
        return pooled


def test_float_golden(golden: Golden) -> None:
    first = legalized(Block(), normal(1, 3, 8, 8))
    golden("block_float", format_graph(first))
    golden("block_float_final", format_graph(TAIL(first)))


def test_int8_golden(golden: Golden) -> None:
    core = quantized_core(Block(), normal(1, 3, 8, 8))
    golden("block_int8", format_graph(TAIL(Pipeline((LegalizeTflite(),))(core))))


DECOMPOSED = {
    "lstm": case(nn.LSTM(4, 6, 2, bidirectional=True), normal(5, 2, 4)),
    "gru": case(nn.GRU(4, 6, batch_first=True), normal(2, 5, 4)),
    "rnn": case(nn.RNN(4, 6), normal(5, 2, 4)),
    "lstm-cell": case(nn.LSTMCell(4, 6), normal(2, 4)),
    "gru-cell": case(nn.GRUCell(4, 6), normal(2, 4)),
    "grid-sample": case(
        lambda x, g: functional.grid_sample(x, g, align_corners=False),
        normal(1, 3, 5, 5),
        normal(1, 4, 4, 2).tanh(),
    ),
    "affine-grid": case(
        lambda t: functional.affine_grid(t, [1, 3, 4, 4], align_corners=False), normal(1, 2, 3)
    ),
    "trilinear": case(
        lambda x: functional.interpolate(x, scale_factor=2, mode="trilinear"),
        normal(1, 2, 3, 3, 3),
    ),
    "loss": case(functional.mse_loss, normal(3, 4), normal(3, 4, seed=1)),
}


@each(DECOMPOSED)
def test_what_has_no_rule_is_decomposed(found: Case) -> None:
    check(found.model, *found.inputs, tolerance=2e-5)


def test_all_unsupported_operators_are_listed_with_their_lines() -> None:
    def model(x: Tensor) -> Tensor:
        y = torch.lgamma(x)
        z = torch.relu(y) + torch.digamma(x)
        return torch.erfinv(z)

    with pytest.raises(UnsupportedOp) as caught:
        legalized(model, normal(2, 3).abs() + 1)
    text = str(caught.value)
    assert "3 operators" in text
    for name in ("lgamma", "digamma", "erf"):
        assert f"aten.{name}" in text
    assert text.count("test_legalize_tflite.py:") == 3


def test_an_unknown_second_result_is_an_error_only_where_it_is_used() -> None:
    pool = nn.MaxPool2d(2, return_indices=True)
    check(lambda x: pool(x)[0], normal(1, 2, 4, 4))
    with pytest.raises(UnsupportedOp, match="second result"):
        legalized(pool, normal(1, 2, 4, 4))


def test_integers_at_the_borders() -> None:
    x = normal(1, 3, 8, 8)
    core = quantized_core(Block(), x)
    final = Pipeline((LegalizeTflite(io_dtype="int8"),))(core)
    names = [getattr(node.target, "__name__", "") for node in final.graph.nodes]
    assert {"bind", "unbind"} <= set(names)
    assert not {"quantize", "dequantize"} & set(names)
    numbers = torch.randint(-128, 128, x.shape, dtype=torch.int8)
    (found,) = run(final, "reference", [numbers])
    assert torch.equal(found, final(numbers))


def test_a_float_island_is_noted() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardswish())
    final = Pipeline((LegalizeTflite(),))(quantized_core(model, normal(1, 3, 4, 4)))
    assert "hardswish" in " ".join(state_of(final).notes["legalize-tflite"])


def test_the_model_is_not_changed() -> None:
    model = Block().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    legalized(model, normal(1, 3, 8, 8))
    quantized_core(model, normal(1, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
