"""Train and eval mode, gradients on and off, checkpointing, autocast, compiled parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fxquant.errors import TraceError
from fxquant.tracing import trace
from tests.tracing.replay import assert_replays, targets


class Functional(nn.Module):
    """Dropout as a function, in two flavors."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.4, training=self.training)
        return F.dropout2d(x, 0.3, self.training) + F.dropout(x, 0.1, training=False)


class Always(nn.Module):
    """Dropout that is on in eval mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.4, training=True)


class NormAct(nn.BatchNorm2d):
    """A batch norm with an activation, in the way of timm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked.add_(1)
        y = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.1,
            self.eps,
        )
        z: Tensor = self.act(y)
        return z


class Frozen(nn.Module):
    """Parts without gradients, in both spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.stem(x)
            with torch.enable_grad():
                y = y + self.head(x)
        z: Tensor = self.head(y) + self.constant(x)
        return z

    @torch.no_grad()
    def constant(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x).detach()
        return y


class Checkpointed(nn.Module):
    """Activation checkpointing."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.body, x, use_reentrant=self.reentrant)
        return y


class Round(torch.autograd.Function):
    """Rounding with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round() * 1

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


class StochasticDepth(nn.Module):
    """Random numbers drawn by the user's code."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.training:
            noise = torch.empty([x.shape[0], 1]).bernoulli_(0.5)
            y = y * noise.div_(0.5)
        return x + y


def test_functional_dropout_becomes_a_module() -> None:
    """It follows `train()` and `eval()` of the graph."""
    graph = assert_replays(Functional(), torch.randn(2, 3, 4, 4))
    assert targets(graph)[:2] == ["dropout", "dropout2d"]
    x = torch.randn(2, 3, 4, 4)
    graph.eval()
    assert torch.equal(graph(x), x + x)
    graph.train()
    assert not torch.equal(graph(x), x + x)


def test_dropout_that_is_always_on_stays_on() -> None:
    """Its `training` argument does not follow the module."""
    model = Always().eval()
    graph = trace(model, (torch.ones(64),))
    assert [n.op for n in graph.graph.nodes][1] == "call_function"
    assert (graph(torch.ones(64)) == 0).any()


@pytest.mark.parametrize("fake", [True, False])
def test_functional_batch_norm_becomes_a_module(fake: bool) -> None:
    """At the place of the user's module, sharing its tensors, counting batches once."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), NormAct(4))
    graph = assert_replays(model, torch.randn(2, 3, 5, 5), fake=fake)
    assert targets(graph) == ["0", "1", "1.act"]
    assert type(graph.get_submodule("1")) is nn.BatchNorm2d


@pytest.mark.parametrize("ambient", [True, False])
def test_no_grad_blocks_keep_their_effect(ambient: bool) -> None:
    """The same parameters get the same gradients, and the caller's mode is put back."""
    with torch.set_grad_enabled(ambient):
        model = Frozen()
        graph = assert_replays(model, torch.randn(3, 4))
        assert torch.is_grad_enabled() == ambient
        graph(torch.randn(3, 4))
        assert torch.is_grad_enabled() == ambient
    x = torch.randn(3, 4)
    wanted = torch.autograd.grad(model(x).sum(), [*model.parameters()], allow_unused=True)
    actual = torch.autograd.grad(graph(x).sum(), [*model.parameters()], allow_unused=True)
    for left, right in zip(wanted, actual, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            assert torch.equal(left, right)
    assert wanted[0] is None


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_followed(reentrant: bool) -> None:
    """The graph has the operations, and their gradients."""
    model = Checkpointed(reentrant)
    graph = assert_replays(model, torch.randn(3, 4, requires_grad=True))
    assert targets(graph) == ["body.0", "body.1", "body.2"]
    graph(torch.randn(3, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_autograd_functions_are_followed() -> None:
    """Their forward is recorded."""
    apply: Any = Round.apply
    graph = assert_replays(lambda x: apply(x) + 1, torch.randn(4))
    assert targets(graph) == ["round", "mul", "add"]


def test_random_depth_is_drawn_anew() -> None:
    """A factory that is filled with random numbers is not a constant."""
    assert_replays(StochasticDepth(), torch.randn(3, 4))


def test_compiled_parts_are_followed() -> None:
    """`torch.compile` around a part changes its path, as in the checkpoint, and nothing else."""
    compiled: Any = torch.compile(nn.Sequential(nn.ReLU()), backend="eager")
    model = nn.Sequential(nn.Linear(4, 4), compiled)
    graph = trace(model.eval(), (torch.randn(2, 4),))
    assert targets(graph) == ["0", "1._orig_mod.0"]


def test_autocast_is_refused() -> None:
    """Inside the model and around the trace."""

    def function(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x

    with pytest.raises(TraceError, match=r"autocast changes the dtype(.|\n)*return x @ x"):
        trace(function, (torch.randn(3, 3),))
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TraceError, match="autocast"):
        trace(nn.Linear(2, 2), (torch.randn(2, 2),))


def test_autocast_that_is_off_is_nothing() -> None:
    """A common idiom around norms."""

    def function(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return x.float() @ x

    assert_replays(function, torch.randn(3, 3))
