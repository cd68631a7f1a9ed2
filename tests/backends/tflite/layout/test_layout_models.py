"""Traced models: how many transposes are left, and how the graph is called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from fxquant.backends.tflite.layout.assign_layout import AssignLayout
from fxquant.backends.tflite.legalize.legalize_tflite import LegalizeTflite
from fxquant.errors import InputError
from fxquant.ir.state import state_of
from fxquant.passes.base import CHANGES
from fxquant.passes.pipeline import Pipeline
from fxquant.tracing import trace
from tests.backends.tflite.layout.layout_graphs import transposes


class Residual(nn.Module):
    """A small net with a residual, a gate, a flatten and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.first(x))
        z = self.second(y) + y
        z = z * torch.sigmoid(self.gate(z.mean((2, 3), keepdim=True)))
        return z, self.head(torch.flatten(torch.max_pool2d(z, 2), 1))


class Signal(nn.Module):
    """One spatial dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


def _legal(model: nn.Module, x: Tensor) -> GraphModule:
    pipeline = Pipeline((*Pipeline.default("float"), LegalizeTflite()))
    return pipeline(trace(model.eval(), (x,)))


def _assigned(graph_module: GraphModule, assign: AssignLayout) -> GraphModule:
    return Pipeline((assign,))(graph_module)


@pytest.fixture
def legal() -> GraphModule:
    torch.manual_seed(0)
    return _legal(Residual(), torch.randn(1, 3, 8, 8))


def test_channels_first(legal: GraphModule) -> None:
    result = _assigned(legal, AssignLayout())
    x = torch.randn(1, 3, 8, 8)
    assert len(transposes(result)) == 2  # the input, and the image that is returned
    for was, now in zip(legal(x), result(x), strict=True):
        torch.testing.assert_close(now, was)
    assert any("transposed bytes" in line for line in state_of(result).notes["assign-layout"])


def test_channels_last(legal: GraphModule) -> None:
    result = _assigned(legal, AssignLayout(io_layout="nhwc"))
    x = torch.randn(1, 3, 8, 8)
    assert transposes(result) == []
    image, scores = result(x.permute(0, 2, 3, 1).contiguous())
    torch.testing.assert_close(image.permute(0, 3, 1, 2), legal(x)[0])
    torch.testing.assert_close(scores, legal(x)[1])
    nodes = list(result.graph.nodes)
    assert nodes[0].meta["io_permutation"] == (0, 2, 3, 1)
    assert nodes[-1].meta["io_permutation"] == [(0, 2, 3, 1), None]
    signature = state_of(result).signature
    assert signature.inputs[0].shape == (1, 8, 8, 3)
    assert signature.outputs[0].shape == (1, 8, 8, 8)
    assert state_of(legal).signature.inputs[0].shape == (1, 3, 8, 8)


def test_one_border_only(legal: GraphModule) -> None:
    names = state_of(legal).signature.output_names
    first = _assigned(legal, AssignLayout(io_layout="nhwc", channels_first=(names[0],)))
    assert [node.meta["type"].shape for node in transposes(first)] == [(1, 8, 8, 8)]
    last = _assigned(legal, AssignLayout(channels_last=("x",)))
    assert [node.meta["type"].shape for node in transposes(last)] == [(1, 8, 8, 8)]


def test_signals_are_named_to_move() -> None:
    legal = _legal(Signal(), torch.randn(1, 3, 16))
    plain = _assigned(legal, AssignLayout(io_layout="nhwc"))
    assert "io_permutation" not in next(iter(plain.graph.nodes)).meta
    (name,) = state_of(legal).signature.output_names
    named = _assigned(legal, AssignLayout(channels_last=("x", name)))
    assert transposes(named) == []
    x = torch.randn(1, 3, 16)
    torch.testing.assert_close(named(x.permute(0, 2, 1)).permute(0, 2, 1), legal(x))


def test_unknown_names_are_refused(legal: GraphModule) -> None:
    with pytest.raises(InputError, match="y is no input or output"):
        _assigned(legal, AssignLayout(channels_last=("y",)))
    with pytest.raises(InputError, match="cannot be both"):
        _assigned(legal, AssignLayout(channels_last=("x",), channels_first=("x",)))


def test_declared_semantics() -> None:
    assert AssignLayout.semantics.kind == "close"
    assert AssignLayout(io_layout="nhwc").semantics == CHANGES
    assert str(AssignLayout(io_layout="nhwc")) == "assign-layout{io_layout=nhwc}"
    assert Pipeline.parse("assign-layout{io_layout=nhwc}").passes == (
        AssignLayout(io_layout="nhwc"),
    )


def test_a_second_time_changes_nothing(legal: GraphModule) -> None:
    once = _assigned(legal, AssignLayout())
    assert not AssignLayout().run(once).modified
