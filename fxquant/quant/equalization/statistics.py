"""What samples say of each channel of a value: extremes, and mean power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.stepping import Stepper
from fxquant.quant.batches import Call


class Statistics:
    """What is known of the channels of one value.

    Args:
        axis: where the channels are.
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.samples = 0
        self._low = torch.tensor(torch.inf)
        self._high = torch.tensor(-torch.inf)
        self._powers = torch.tensor(0.0).double()

    def add(self, value: Tensor) -> None:
        """Take a batch in; dimension 0 counts samples, where it is not the channels."""
        batch = value.unsqueeze(0) if self.axis == 0 else value
        rows = batch.movedim(self.axis or 1, 1).flatten(2) if batch.dim() > 2 else batch[..., None]
        # amin and amax are vectorized, aminmax along a dimension is not.
        self._low = torch.minimum(self._low.to(rows.device), rows.amin((0, 2)))
        self._high = torch.maximum(self._high.to(rows.device), rows.amax((0, 2)))
        lengths = torch.linalg.vector_norm(rows, dim=2).double()
        self._powers = self._powers.to(rows.device) + lengths.square_().sum(0) / rows.shape[2]
        self.samples += batch.shape[0]

    @property
    def low(self) -> Tensor:
        """The least value of each channel, float64 on the host."""
        return self._low.cpu().double()

    @property
    def high(self) -> Tensor:
        """The largest value of each channel, float64 on the host."""
        return self._high.cpu().double()

    @property
    def reach(self) -> tuple[Tensor, Tensor]:
        """The extremes, 0 included."""
        return self.low.clamp(max=0.0), self.high.clamp(min=0.0)

    @property
    def power(self) -> Tensor:
        """The mean over samples of each channel's mean square, float64 on the host."""
        return self._powers.cpu() / self.samples

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


class _Collector(Stepper):
    def __init__(self, graph: GraphModule, found: Mapping[str, Statistics]) -> None:
        super().__init__(graph)
        self.found = found

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.found:
            self.found[n.name].add(value)
        return value
