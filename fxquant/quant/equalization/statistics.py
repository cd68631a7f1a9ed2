"""What samples say of each channel of a value: extremes, and mean power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fxquant.quant.batches import Call


@dataclass
class Statistics:
    """Per channel, float64.

    Attributes:
        axis: where the channels are.
        low, high: the extremes.
        powers: the sum over samples of a sample's mean square.
        samples: how many there were.
    """

    axis: int
    low: Tensor = field(default_factory=lambda: torch.tensor(torch.inf).double())
    high: Tensor = field(default_factory=lambda: torch.tensor(-torch.inf).double())
    powers: Tensor = field(default_factory=lambda: torch.tensor(0.0).double())
    samples: int = 0

    def add(self, value: Tensor) -> None:
        """Take a batch in; dimension 0 counts samples, where it is not the channels."""
        batch = value.unsqueeze(0) if self.axis == 0 else value
        rows = batch.movedim(self.axis or 1, 1).flatten(2) if batch.dim() > 2 else batch[..., None]
        # amin and amax are vectorized, aminmax along a dimension is not.
        low, high = (part.cpu().double() for part in (rows.amin(2), rows.amax(2)))
        self.low = torch.minimum(self.low, low.amin(0))
        self.high = torch.maximum(self.high, high.amax(0))
        lengths = torch.linalg.vector_norm(rows, dim=2).cpu().double()
        self.powers = self.powers + lengths.square().sum(0) / rows.shape[2]
        self.samples += batch.shape[0]

    @property
    def reach(self) -> tuple[Tensor, Tensor]:
        """The extremes, 0 included."""
        return self.low.clamp(max=0.0), self.high.clamp(min=0.0)

    @property
    def power(self) -> Tensor:
        """The mean square."""
        return self.powers / self.samples

    @property
    def finite(self) -> bool:
        """Whether only finite values were seen, and any at all."""
        return bool(torch.isfinite(self.high - self.low).all()) and self.samples > 0


def collect(calls: Iterable[Call], axes: Mapping[Node, int]) -> dict[Node, Statistics]:
    """Statistics of the values in `axes` (node -> channel axis) over all calls.

    The calls may be of copies of the graph; nodes are known by their names.
    """
    found = {node.name: Statistics(axis) for node, axis in axes.items()}
    for graph, inputs in calls:
        _Collector(graph, found).run(*inputs)
    return {node: found[node.name] for node in axes}


class _Collector(Interpreter):
    def __init__(self, graph: GraphModule, found: Mapping[str, Statistics]) -> None:
        super().__init__(graph)
        self.found = found

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.found:
            self.found[n.name].add(value)
        return value
