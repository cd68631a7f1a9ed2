"""Whole networks: bit-identical, functional, with the state dict of the user's model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import GraphModule

from fxquant.ir.validity import check_graph
from fxquant.passes.functional.modules import stays
from fxquant.passes.functionalize import Functionalize
from fxquant.tracing.trace import trace
from tests.support.vision import vision_models

MODELS = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "mnasnet1_0", "efficientnet_b0", "regnet_y_400mf", "squeezenet1_0", "shufflenet_v2_x1_0",
    "densenet121", "googlenet", "inception_v3", "vgg11_bn", "alexnet", "vit_b_16", "swin_t",
    "convnext_tiny",
)  # fmt: skip
LARGE = {"vit_b_16": 224, "inception_v3": 96}


def core(model: nn.Module, *inputs: Tensor) -> GraphModule:
    """The core graph of a model, checked for what must hold of any."""
    graph_module = Functionalize().run(trace(model, inputs)).graph_module
    check_core(graph_module)
    assert list(graph_module.state_dict()) == list(model.state_dict())
    return graph_module


def check_core(graph_module: GraphModule) -> None:
    """Every node is one that docs/core_dialect.md lists."""
    graph_module.graph.lint()
    check_graph(graph_module)
    for node in graph_module.graph.nodes:
        assert node.op != "call_method"
        if isinstance(node.target, OpOverload):
            assert not node.target._schema.is_mutable
        if node.op == "call_module":
            assert stays(graph_module.get_submodule(str(node.target)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchvision_model(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(vision_models(), name)(weights=None).eval()
    size = LARGE.get(name, 64)
    graph_module = core(model, torch.randn(1, 3, size, size))
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        assert torch.equal(graph_module(x), model(x))


@pytest.mark.parametrize(
    "model",
    [
        nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True),
        nn.LSTM(8, 5, proj_size=3),
        nn.GRU(8, 5),
        nn.RNN(8, 5),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU()),
        nn.Conv1d(4, 4, 3, padding=2, padding_mode="circular"),
        nn.InstanceNorm1d(4, track_running_stats=True),
        nn.Identity(),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_torch_module(model: nn.Module) -> None:
    model.eval()
    graph_module = core(model, torch.randn(2, 4, 8))
    x = torch.randn(2, 4, 8)
    got, wanted = graph_module(x), model(x)
    if isinstance(wanted, tuple):
        got, wanted = got[0], wanted[0]
    assert torch.equal(got, wanted)


class Block(nn.Module):
    """A block in which train and eval mode differ, with modules that write in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.conv(x)))
        result: Tensor = self.drop(y) + y
        return result


@pytest.mark.parametrize("train", [True, False])
def test_train_and_eval_mode(train: bool) -> None:
    model = Block().train(train)
    graph_module = core(model, torch.randn(2, 4, 8))
    for mode in (True, False):
        graph_module.train(mode)
        model.train(mode)
        x = torch.randn(2, 4, 8)
        torch.manual_seed(1)
        wanted = model(x)
        torch.manual_seed(1)
        assert torch.equal(graph_module(x), wanted)
        ours, theirs = graph_module.state_dict(), model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_gradients_are_the_models() -> None:
    model = Block().eval()
    graph_module = core(model, torch.randn(2, 4, 8))
    x = torch.randn(2, 4, 8)
    model(x).square().sum().backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    graph_module(x).square().sum().backward()
    for name, parameter in graph_module.named_parameters():
        grad = wanted[name]
        assert parameter.grad is not None
        assert grad is not None
        assert torch.equal(parameter.grad, grad)


class Partly(nn.Module):
    """A statistic that takes no part in training."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            mean = self.linear(x).mean(-1, keepdim=True)
        result: Tensor = self.linear(x) - mean
        return result


def test_values_of_no_grad_are_detached() -> None:
    model = Partly()
    graph_module = core(model, torch.randn(2, 8))
    names = [str(node.target) for node in graph_module.graph.nodes if node.op == "call_function"]
    assert names.count("aten.detach.default") == 1
    x = torch.randn(2, 8)
    model(x)[0, 0].backward()
    wanted = model.linear.weight.grad
    assert wanted is not None
    model.zero_grad()
    graph_module(x)[0, 0].backward()
    got = dict(graph_module.named_parameters())["linear.weight"].grad
    assert got is not None
    assert torch.equal(got, wanted)


def test_a_second_run_changes_nothing() -> None:
    graph_module = core(Block().eval(), torch.randn(2, 4, 8))
    before = graph_module.code
    again = Functionalize().run(graph_module).graph_module
    assert again.code == before
