"""Passes of the tfl dialect: text before and after, and equal outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

from fxquant.backends.tflite.layout.assign_layout import AssignLayout
from fxquant.backends.tflite.legalize import LegalizeTflite
from fxquant.backends.tflite.passes.fold_tfl_constants import FoldTflConstants
from fxquant.backends.tflite.passes.fuse_activation import FuseActivation
from fxquant.backends.tflite.passes.merge_pads import MergePads
from fxquant.ir.printer import format_graph
from fxquant.passes.base import Pass
from fxquant.passes.pipeline import Pipeline
from tests.backends.tflite.legalize.cases import normal
from tests.backends.tflite.legalize.one_model import legalized, quantized_core
from tests.conftest import Golden


def _operators(graph_module: GraphModule) -> list[str]:
    nodes = graph_module.graph.nodes
    return [getattr(node.target, "__name__", "") for node in nodes if node.op == "call_function"]


def _exactly(item: Pass, before: GraphModule, *inputs: Tensor) -> GraphModule:
    """The graph after a pass, whose outputs must be the same bits."""
    wanted = before(*inputs)
    after = Pipeline((item,))(before)
    assert torch.equal(after(*inputs), wanted)
    return after


class TwoReaders(nn.Module):
    """An activation whose operand is read twice, and one whose is not."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = x + y
        return functional.relu6(total) + functional.relu(x * y) + total


def test_fuse_activation(golden: Golden) -> None:
    inputs = (normal(1, 4), normal(1, 4, seed=1))
    before = legalized(TwoReaders(), *inputs)
    golden("fuse_activation_before", format_graph(before))
    after = _exactly(FuseActivation(), before, *inputs)
    golden("fuse_activation_after", format_graph(after))


def test_fuse_activation_through_a_transpose() -> None:
    x = normal(1, 3, 6, 6)
    before = legalized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6()), x)
    assert "relu6" not in _operators(_exactly(FuseActivation(), before, x))


def test_an_activation_of_another_grid_stays() -> None:
    x = normal(1, 3, 6, 6)

    def model(x: Tensor) -> Tensor:
        return functional.relu(x) - x * 0.3

    core = quantized_core(nn.Sequential(nn.Conv2d(3, 4, 3)), x)
    before = Pipeline((LegalizeTflite(),))(core)
    assert "relu" not in _operators(before)
    core = quantized_core(lambda x: model(functional.conv2d(x, torch.eye(3)[:, :, None, None])), x)
    before = Pipeline((LegalizeTflite(),))(core)
    assert "relu" in _operators(_exactly(FuseActivation(), before, x))


def test_fold_tfl_constants(golden: Golden) -> None:
    table = normal(3, 2)
    x = normal(2, 3)
    before = legalized(lambda x: x + table.t().expand(2, 3).exp(), x)
    after = _exactly(FoldTflConstants(), before, x)
    golden("fold_tfl_constants", format_graph(after))


def test_merge_pads(golden: Golden) -> None:
    torch.manual_seed(0)
    x = normal(1, 3, 8, 8)
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2))
    before = Pipeline((AssignLayout(),))(legalized(model, x))
    golden("merge_pads_before", format_graph(before))
    golden("merge_pads_after", format_graph(_exactly(MergePads(), before, x)))


def test_padding_that_same_would_put_elsewhere_stays() -> None:
    x = normal(1, 3, 8, 8)
    model = nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(3, 4, 3, 2))
    before = Pipeline((AssignLayout(),))(legalized(model, x))
    assert "pad" in _operators(_exactly(MergePads(), before, x))


def test_pad_behind_pad() -> None:
    x = normal(1, 3, 8, 8)
    before = legalized(lambda x: functional.pad(functional.pad(x, (1, 0)), (0, 2, 1, 1)), x)
    assert _operators(_exactly(MergePads(), before, x)) == ["pad"]
