"""Folding, removing and merging in the core dialect: text before and after, and equal results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from fxquant.ir.printer import format_graph
from fxquant.passes.base import Pass
from fxquant.passes.batch_norm_to_conv import BatchNormToConv
from fxquant.passes.common_subexpressions import CommonSubexpressions
from fxquant.passes.dead_code import DeadCode
from fxquant.passes.drop_dropout import DropDropout
from fxquant.passes.fold_constants import FoldConstants
from fxquant.passes.functionalize import Functionalize
from fxquant.passes.fuse_conv_bn import FuseConvBn
from fxquant.passes.fuse_conv_hardsigmoid import FuseConvHardsigmoid
from fxquant.passes.instruments import Lint, instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.validation import Validate
from fxquant.tracing import trace
from tests.conftest import Golden


def core(model: nn.Module, *inputs: Tensor) -> GraphModule:
    return Pipeline((Functionalize(),))(trace(model, inputs))


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms that do something, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.num_features:
            for tensor in (module.running_mean, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.normal_(generator=generator)
            if module.running_var is not None:
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


class Through(nn.Module):
    """A model from a function that is given the modules of a Sequential."""

    def __init__(self, call: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, *self.parts)


def changed(item: Pass, graph_module: GraphModule) -> GraphModule:
    """The graph after a pass, which validation and lint have seen."""
    with instruments(Validate(), Lint()):
        return Pipeline((item,))(graph_module)


def before_and_after(item: Pass, graph_module: GraphModule) -> str:
    after = changed(item, graph_module)
    return f"{format_graph(graph_module)}\n{item}\n\n{format_graph(after)}"


FOLDED: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    ("conv1d", nn.Sequential(nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d(6)), (2, 4, 9)),
    ("conv2d", nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), (2, 4, 9, 9)),
    ("grouped", nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 9, 9)),
    ("depthwise", nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)), (2, 4, 9, 9)),
    ("conv3d", nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)), (2, 2, 4, 4, 4)),
    ("up1d", nn.Sequential(nn.ConvTranspose1d(4, 6, 3), nn.BatchNorm1d(6)), (2, 4, 9)),
    ("up2d", nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2), nn.BatchNorm2d(6)), (2, 4, 5, 5)),
    (
        "up2d-grouped",
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)),
        (2, 4, 5, 5),
    ),
    ("up3d", nn.Sequential(nn.ConvTranspose3d(2, 4, 2), nn.BatchNorm3d(4)), (1, 2, 3, 3, 3)),
    ("linear", nn.Sequential(nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7)), (3, 5)),
    (
        "no-affine",
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)),
        (2, 4, 9, 9),
    ),
]


@pytest.mark.parametrize(
    ("model", "shape"), [row[1:] for row in FOLDED], ids=[row[0] for row in FOLDED]
)
def test_batch_norm_folds_into_every_layer_before_it(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    graph_module = core(with_statistics(model), torch.randn(shape))
    folded = changed(FuseConvBn(), graph_module)
    assert all(node.op != "call_module" for node in folded.graph.nodes)
    x = torch.randn(shape)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)


def test_the_text_before_and_after_folding(golden: Golden) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    graph_module = core(with_statistics(model), torch.randn(1, 3, 6, 6))
    golden("fuse-conv-bn", before_and_after(FuseConvBn(), graph_module))


def test_the_users_parameters_are_not_touched_by_folding() -> None:
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph_module = core(model, torch.randn(1, 3, 6, 6))
    changed(FuseConvBn(), graph_module)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "1.running_mean" in graph_module.state_dict()


UNFOLDED: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    (
        "the convolution has another reader",
        Through(
            lambda x, conv, norm: norm(y := conv(x)) + y, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        ),
        (2, 3, 6, 6),
    ),
    (
        "something stands between",
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        (2, 3, 6, 6),
    ),
    (
        "the norm runs over another dimension",
        nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(3)),
        (2, 3, 5),
    ),
    (
        "the norm has no statistics",
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        (2, 3, 6, 6),
    ),
]


@pytest.mark.parametrize(
    ("model", "shape"), [row[1:] for row in UNFOLDED], ids=[row[0] for row in UNFOLDED]
)
def test_what_cannot_be_folded_stays(model: nn.Module, shape: tuple[int, ...]) -> None:
    graph_module = core(with_statistics(model), torch.randn(shape))
    folded = changed(FuseConvBn(), graph_module)
    assert any(node.op == "call_module" for node in folded.graph.nodes)
    x = torch.randn(shape)
    assert torch.equal(folded(x), graph_module(x))


def test_a_batch_norm_in_train_mode_stays() -> None:
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).train()
    folded = changed(FuseConvBn(), core(model, torch.randn(2, 3, 6, 6)))
    assert any(node.op == "call_module" for node in folded.graph.nodes)


def test_a_shared_convolution_with_two_norms_gets_two_weights() -> None:
    model = with_statistics(
        Through(
            lambda x, conv, one, two: one(conv(x)) + two(conv(x)),
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.BatchNorm2d(4),
        )
    )
    folded = changed(FuseConvBn(), core(model, torch.randn(1, 3, 6, 6)))
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)
    assert all(node.op != "call_module" for node in folded.graph.nodes)


def test_a_norm_that_nothing_absorbs_becomes_a_depthwise_convolution(golden: Golden) -> None:
    model = with_statistics(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    graph_module = core(model, torch.randn(1, 4, 5, 5))
    golden("batch-norm-to-conv", before_and_after(BatchNormToConv(), graph_module))


def test_the_line_of_a_hard_sigmoid_goes_into_the_layer_before_it(golden: Golden) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardsigmoid())
    graph_module = core(model, torch.randn(1, 3, 5, 5))
    golden("fuse-conv-hardsigmoid", before_and_after(FuseConvHardsigmoid(), graph_module))
    x = torch.randn(1, 3, 5, 5) * 9
    after = changed(FuseConvHardsigmoid(), graph_module)
    torch.testing.assert_close(after(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_hard_sigmoid_stays_where_the_layer_has_another_reader() -> None:
    model = Through(
        lambda x, conv: (y := conv(x)) * nn.functional.hardsigmoid(y), nn.Conv2d(3, 4, 1)
    )
    graph_module = core(model, torch.randn(1, 3, 5, 5))
    assert "hardsigmoid" in format_graph(changed(FuseConvHardsigmoid(), graph_module))


def test_constants_are_folded_once() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.weight.t() * 2).contiguous() + torch.rand_like(x) * 0

    graph_module = core(Weighted(), torch.randn(2, 3))
    text = format_graph(changed(FoldConstants(), graph_module))
    assert "rand_like" in text
    assert "mul(@" not in text and "_folded" in text


def test_dropout_in_eval_mode_goes_and_in_train_mode_stays(golden: Golden) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.ReLU()).eval()
    graph_module = core(model, torch.randn(2, 4))
    golden("drop-dropout", before_and_after(DropDropout(), graph_module))
    trained = core(model.train(), torch.randn(2, 4))
    assert "Dropout" in format_graph(changed(DropDropout(), trained))


def test_dead_and_double_code_goes(golden: Golden) -> None:
    class Wasteful(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.sin(x)
            return torch.relu(x) + torch.relu(x) + (x + 1) + (x + 1.0)

    graph_module = core(Wasteful(), torch.randn(2, 4))
    pipeline = Pipeline((CommonSubexpressions(), DeadCode()))
    with instruments(Validate(), Lint()):
        after = pipeline(graph_module)
    golden("common-subexpressions", f"{format_graph(graph_module)}\n{format_graph(after)}")


def test_random_values_are_not_merged() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x) - torch.rand_like(x)

    graph_module = core(Noisy(), torch.randn(2, 4))
    text = format_graph(Pipeline((CommonSubexpressions(),))(graph_module))
    assert text.count("rand_like(") == 2


def test_the_parts_of_a_constant_are_folded() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed = nn.Parameter(torch.randn(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.packed.chunk(2)
            return nn.functional.linear(x, first) * nn.functional.linear(x + 1, second)

    model, x = Packed(), torch.randn(2, 3)
    graph_module = core(model, x)
    text = format_graph(changed(FoldConstants(), graph_module))
    assert "split" not in text and "getitem" not in text and text.count("@_folded") == 2
    torch.testing.assert_close(graph_module(x), model(x))
