"""A bounded, even sample of all the data that passed, for methods that need data again.

Calibration data may be a stream that can be read once. Of every batch the samples are offered
here; each of the many seen so far is kept with the same chance, and the number kept is bounded by
the memory that running them node by node will take.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.quant.batches import BatchRunner, Call

SAMPLES = 16
"""The most samples kept."""

MEMORY = 1 << 30
"""The most bytes that the activations of all kept samples may take at once."""

TOGETHER, CACHE = 8, 1 << 22
"""The most samples that are run in one call, and the bytes that their activations should keep to:
values larger than the cache cost more than calls do."""


class Reservoir:
    """Keeps samples of the data of a graph.

    Args:
        runner: how batches become calls of the graph.
        size: the most samples kept.
    """

    def __init__(self, runner: BatchRunner, size: int = SAMPLES) -> None:
        self.runner = runner
        live = max(1, live_bytes(runner.root))
        self.size = max(1, min(size, MEMORY // live))
        self.together = max(1, min(TOGETHER, CACHE // live))
        self.kept: list[tuple[Tensor, ...]] = []
        self.seen = 0
        self.random = random.Random(0)

    def offer(self, inputs: tuple[Tensor, ...]) -> None:
        """Show the inputs of one call; some of their samples are copied."""
        for sample in self.runner.samples(inputs):
            self.seen += 1
            if len(self.kept) < self.size:
                self.kept.append(_copied(sample))
                continue
            place = self.random.randrange(self.seen)
            if place < self.size:
                self.kept[place] = _copied(sample)

    def calls(self) -> Iterator[Call]:
        """The calls that run what was kept."""
        for start in range(0, len(self.kept), self.together):
            parts = self.kept[start : start + self.together]
            yield from self.runner.calls_on(_joined(parts))


def _copied(sample: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(leaf.detach().clone() for leaf in sample)


def _joined(parts: list[tuple[Tensor, ...]]) -> list[Tensor]:
    leaves = zip(*parts, strict=True)
    return [torch.cat(leaf) if leaf[0].dim() else leaf[0] for leaf in leaves]


def live_bytes(root: GraphModule) -> int:
    """The most bytes of activations that are needed at one time, for the example's batch size."""
    last: dict[Node, Node] = {}
    for node in root.graph.nodes:
        for source in node.all_input_nodes:
            last[source] = node
    done: dict[Node, list[Node]] = {}
    for source, user in last.items():
        done.setdefault(user, []).append(source)
    now = most = 0
    for node in root.graph.nodes:
        now += _bytes(node)
        most = max(most, now)
        now -= sum(_bytes(source) for source in done.get(node, ()))
    return most


def _bytes(node: Node) -> int:
    value = node.meta.get("val")
    if node.op == "get_attr":
        return 0
    parts = value if isinstance(value, list | tuple) else (value,)
    return sum(p.numel() * p.element_size() for p in parts if isinstance(p, Tensor))
