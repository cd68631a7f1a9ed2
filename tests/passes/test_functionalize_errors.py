"""What cannot be written in the core dialect: one error, each place with the user's line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fxquant.errors import InvalidGraph, UnsupportedOp
from fxquant.passes.functionalize import Functionalize
from fxquant.tracing.trace import trace


class Counting(nn.Module):
    """Writes two of its buffers."""

    steps: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.steps.add_(1)
        self.sums[0] = 2
        return x + self.sums


def functionalize(function: Callable[..., object], *inputs: Tensor) -> None:
    Functionalize().run(trace(function, inputs))


def test_all_problems_are_listed_with_their_lines() -> None:
    with pytest.raises(UnsupportedOp) as caught:
        functionalize(Counting(), torch.randn(2, 8))
    message = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "@steps is written to in forward" in message
    assert "self.steps.add_(1)" in message
    assert "@sums is written to in forward" in message
    assert "self.sums[0] = 2" in message
    assert "fix" in message


def test_the_graph_is_left_as_it_was() -> None:
    graph_module = trace(Counting(), (torch.randn(2, 8),))
    before, state = graph_module.code, list(graph_module.state_dict())
    with pytest.raises(UnsupportedOp):
        Functionalize().run(graph_module)
    assert graph_module.code == before
    assert list(graph_module.state_dict()) == state


def test_statistics_of_a_norm_in_train_mode() -> None:
    module = nn.InstanceNorm1d(4, track_running_stats=True).train()
    with pytest.raises(UnsupportedOp, match="in train mode writes @running_mean"):
        functionalize(module, torch.randn(2, 4, 8))


def test_a_graph_without_shapes() -> None:
    graph_module = torch.fx.symbolic_trace(nn.Linear(8, 8))
    with pytest.raises(InvalidGraph, match="has no shape and dtype"):
        Functionalize().run(graph_module)


def test_an_operator_that_writes_two_arguments() -> None:
    library = torch.library.Library("fxquant_test_two", "FRAGMENT")
    library.define("swap_(Tensor(a!) x, Tensor(b!) y) -> ()")
    library.impl("swap_", lambda x, y: None, "Meta")

    def swap(x: Tensor) -> Tensor:
        y = x.clone()
        torch.ops.fxquant_test_two.swap_(x, y)
        return y

    with pytest.raises(UnsupportedOp, match="has no functional form"):
        functionalize(swap, torch.randn(2))


def test_an_operator_of_another_library_stays_whole() -> None:
    library = torch.library.Library("fxquant_test_own", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    library.impl("twice", torch.empty_like, "Meta")
    traced = trace(torch.ops.fxquant_test_own.twice.default, (torch.randn(2),))
    graph_module = Functionalize().run(traced).graph_module
    targets = [str(n.target) for n in graph_module.graph.nodes if n.op == "call_function"]
    assert targets == ["fxquant_test_own.twice.default"]
