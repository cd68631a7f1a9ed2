"""Models and wrong passes for the tests of instruments: each wrong in a known place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from fxquant.ir.aten import aten
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics


class Net(nn.Module):
    """Two convolutions, a batch norm, a sigmoid and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.sigmoid(self.second(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def net() -> Net:
    """A seeded `Net` in eval mode whose norm does something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net()
        model.norm.running_mean.normal_()  # type: ignore[union-attr]
        model.norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return model.eval()


def pictures(count: int = 4) -> list[tuple[Tensor]]:
    """Seeded inputs of a `Net`."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 3, 8, 8, generator=generator),) for _ in range(count)]


@dataclass(frozen=True)
class WrongSigmoid(Pass):
    """%y = sigmoid(%x)  ->  %y = tanh(%x), which it says is the same."""

    name: ClassVar[str] = "wrong-sigmoid"
    requires: ClassVar[frozenset[str]] = frozenset({"functional"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        found = graph_module.graph.find_nodes(op="call_function", target=aten.sigmoid.default)
        for node in found:
            node.target = aten.tanh.default
        return PassResult(graph_module, bool(found))


@dataclass(frozen=True)
class Crash(Pass):
    """Raises, as a pass does that meets what it did not think of."""

    name: ClassVar[str] = "crash"

    reason: str = "no such node"

    def run(self, graph_module: GraphModule) -> PassResult:
        raise KeyError(self.reason)
