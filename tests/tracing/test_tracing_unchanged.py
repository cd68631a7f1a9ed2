"""The user's model is the same after a trace as before, also after an error."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from fxquant.errors import TraceError
from fxquant.tracing import trace


class Careless(nn.Module):
    """A forward pass that leaves traces everywhere, and may fail at the end."""

    ema: Tensor
    late: Tensor

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.embed = nn.Embedding(5, 4, max_norm=0.1)
        self.gain = nn.Parameter(torch.ones(4))
        self.register_buffer("ema", torch.zeros(4))
        self.calls: list[int] = []
        self.cache: dict[str, Any] = {"kept": 1}
        self.last: Tensor | None = None
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        setattr(self.body[0], "extra", x)  # noqa: B010 - an attribute nobody declared
        self.calls.append(len(self.calls))
        self.cache["x"] = x
        y: Tensor = self.body(x)
        self.last = y
        self.ema = self.ema * 0.9 + y.mean(0)
        self.ema.add_(1)
        self.gain.data.clamp_(max=0.5)
        self.body[1].eval()
        self.register_buffer("late", torch.ones(1))
        y = y * self.gain + self.embed(torch.arange(4)).sum() + torch.rand(4) * random.random()
        torch.set_grad_enabled(False)
        z: Tensor = y * self.late
        if self.fails and y.sum() > 0:
            return y
        return z


def picture(model: nn.Module) -> list[Any]:
    """Everything that is to stay the same, by identity and by value."""
    facts: list[Any] = [random.getstate(), torch.is_grad_enabled(), torch.get_rng_state().tolist()]
    for name, module in model.named_modules():
        facts.append((name, type(module), module.training, sorted(module.__dict__)))
        for key, value in sorted(module.__dict__.items()):
            content = [*value.items()] if isinstance(value, dict) else value
            facts.append((key, id(value), str(content)))
    facts.extend((name, id(t), t.tolist()) for name, t in model.state_dict(keep_vars=True).items())
    tables = [hooks._global_forward_hooks, hooks._global_forward_pre_hooks]
    facts.append([len(table) for table in tables])
    facts.append(nn.Module.__call__)
    return facts


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_model_is_unchanged(fails: bool, fake: bool, training: bool) -> None:
    """Attributes, tensors, flags, hooks, random numbers, gradient mode."""
    model = Careless(fails).train(training)
    model.body[0].register_full_backward_hook(lambda *_: None)
    x = torch.randn(3, 4)
    before, kept = picture(model), x.clone()
    if fails:
        with pytest.raises(TraceError, match="if self.fails and y.sum"):
            trace(model, (x,), fake=fake)
    else:
        trace(model, (x,), fake=fake)
    assert picture(model) == before
    assert torch.equal(x, kept)


@pytest.mark.parametrize("fake", [True, False])
def test_error_of_the_model_comes_through(fake: bool) -> None:
    """An exception of the user's own code is not dressed up."""

    class Broken(nn.Module):
        """Raises in the middle of a leaf's hook."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.body(x)
            raise KeyError("mine")

    model = Broken()
    good, bad = torch.randn(1, 3), torch.randn(1, 4)
    before = picture(model)
    with pytest.raises(KeyError, match="mine"):
        trace(model, (good,), fake=fake)
    with pytest.raises(RuntimeError, match="1, 4|1x4"):
        trace(model, (bad,), fake=fake)
    assert picture(model) == before


def test_caught_exceptions_are_fine() -> None:
    """A leaf module that fails inside `try` leaves the recorder in order."""

    class Tries(nn.Module):
        """Falls back to another layer."""

        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Linear(3, 3)
            self.wide = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            try:
                y: Tensor = self.narrow(x)
            except RuntimeError:
                y = self.wide(x)
            return y + 1

    graph = trace(Tries(), (torch.randn(2, 4),))
    assert [str(n.target) for n in graph.graph.nodes][1:3] == ["wide.0", "wide.1"]
