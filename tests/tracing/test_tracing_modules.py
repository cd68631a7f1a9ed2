"""Which modules stay whole, and under which names."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from fxquant.tracing import trace
from tests.tracing.replay import assert_replays, targets


class Block(nn.Module):
    """A residual block of leaf modules."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Shared(nn.Module):
    """One block under two names, called three times; a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Block(3)
        self.again = self.first
        self.embed = nn.Linear(8, 8)
        self.head = nn.Linear(8, 8)
        self.head.weight = self.embed.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.first(self.first(x)))
        y: Tensor = self.head(self.embed(x)) @ self.head.weight
        return y


class Attention(nn.Module):
    """Modules that are followed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, weights = self.attention(x, x, x)
        z: Tensor = self.layer(y) + weights.mean()
        return z


class Recurrent(nn.Module):
    """Modules with several results."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True)
        self.gru = nn.GRUCell(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.lstm(x)
        return self.gru(y[:, -1], h[0]), y


class Wrapped(nn.Module):
    """Weights computed from others by hooks and parametrizations."""

    def __init__(self) -> None:
        super().__init__()
        self.spectral = parametrizations.spectral_norm(nn.Conv2d(2, 2, 3))
        self.weighted = parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.weighted(self.spectral(x))
        return y


class Own(nn.Conv2d):
    """A user's own subclass of a torch module."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


class Listed(nn.Module):
    """Modules that the module tree does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4), nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_blocks_are_followed_and_leaves_kept() -> None:
    """The path of the leaf is the node's target."""
    graph = assert_replays(nn.Sequential(Block(3), Block(3)), torch.randn(2, 3, 5, 5))
    assert targets(graph)[:6] == ["0.body.0", "0.body.1", "0.body.2", "0.body.3", "add", "relu"]
    names = [n.name for n in graph.graph.nodes]
    assert names[:7] == [
        "input_1",
        "_0_body_0",
        "_0_body_1",
        "_0_body_2",
        "_0_body_3",
        "_0_add",
        "_0_relu",
    ]


@pytest.mark.parametrize("fake", [True, False])
def test_shared_modules_and_tied_weights_keep_their_first_name(fake: bool) -> None:
    """And every name of the checkpoint is there, also the unused ones."""
    graph = assert_replays(Shared(), torch.randn(2, 3, 8, 8), fake=fake)
    assert targets(graph).count("first.body.0") == 3
    assert "embed.weight" in targets(graph)
    assert graph.get_parameter("head.weight") is graph.get_parameter("embed.weight")


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize(
    ("model", "example"),
    [
        (Attention(), torch.randn(2, 5, 8)),
        (Recurrent(), torch.randn(2, 5, 4)),
        (Wrapped(), torch.randn(2, 2, 6, 6)),
        (Own(2, 3, 3), torch.randn(2, 2, 6, 6)),
        (nn.Linear(3, 4), torch.randn(2, 3)),
        (nn.LSTM(3, 4), torch.randn(5, 2, 3)),
        (nn.Embedding(9, 4), torch.arange(6)),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.PReLU()), torch.randn(2, 2, 9)),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, nn.Module) else "",
)
def test_module_replays(model: nn.Module, example: Tensor, fake: bool) -> None:
    """Composite, recurrent, parametrized and own modules, and leaves at the top."""
    assert_replays(copy.deepcopy(model), example, fake=fake)


def test_old_weight_norm_replays() -> None:
    """A weight computed by a forward pre-hook."""
    with pytest.warns(FutureWarning):
        layer = torch.nn.utils.weight_norm(nn.Conv2d(2, 2, 3))
    spectral = torch.nn.utils.spectral_norm(nn.Linear(4, 4))
    graph = assert_replays(nn.Sequential(layer, spectral), torch.randn(2, 2, 6, 6))
    assert "0.weight_g" in targets(graph)


def test_hooks_are_followed() -> None:
    """Forward hooks change the result, and the graph has the change."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    model[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model[1].register_full_backward_hook(lambda module, before, after: None)
    graph = assert_replays(model, torch.randn(2, 3))
    assert "mul" in targets(graph) and "add" in targets(graph)
    assert model[1]._backward_hooks


def test_modules_outside_the_tree_are_added() -> None:
    """Layers in a plain list are found when they are called."""
    graph = trace(Listed(), (torch.randn(2, 4),))
    assert targets(graph) == ["linear", "relu"]
    assert isinstance(graph.linear, nn.Linear)


def test_checkpoints_of_the_model_load() -> None:
    """Strictly, and into a graph that another model of the kind was traced to."""
    graph = trace(Shared().eval(), (torch.randn(2, 3, 8, 8),))
    trained = Shared().eval()
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    graph.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(graph(x), trained(x), rtol=0, atol=0)


def test_the_graph_trains_on_its_own() -> None:
    """Parameters are shared, buffers and the train flag are not."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    graph = trace(model, (torch.randn(4, 3),))
    before = copy.deepcopy(model.state_dict())
    graph.train()
    graph(torch.randn(4, 3)).sum().backward()
    assert not model.training and not model[1].training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model[0].weight.grad is not None


def test_source_names_the_module() -> None:
    """The path of the module whose code runs."""
    graph = trace(nn.Sequential(Block(3)), (torch.randn(1, 3, 4, 4),))
    node = next(n for n in graph.graph.nodes if n.name == "_0_relu")
    assert node.meta["source"].module == "0"
    assert node.meta["source"].code == "return F.relu(x + self.body(x))"


@pytest.mark.parametrize("copies", [copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_copies_work(copies: Any) -> None:
    """Deep copies and pickles call like the original."""
    graph = trace(Shared().eval(), (torch.randn(2, 3, 8, 8),))
    copied = copies(graph)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(copied(x=x), graph(x), rtol=0, atol=0)
    assert copied.meta["fxquant"].signature.input_names == ("x",)


def test_a_leaf_is_called_by_its_own_path() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    graph_module = trace(model, (torch.randn(1, 2),))
    paths = [n.meta["source"].path for n in graph_module.graph.nodes if "source" in n.meta]
    assert paths == ["0", "1.0", "1.1"]
