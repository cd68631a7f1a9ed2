"""A pass list of your own, with a pass of your own in it.

    python examples/custom_passes.py

The model clamps what a sigmoid gave to [0, 1], where it lies anyway. The pass takes such clamps
out, says of itself that results stay the same bits, and is put into the default list. Validation
runs every pass on a picture, before against after, and holds it to its word. Only public names are
used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq

aten = torch.ops.aten


@fq.register_pass
@dataclass(frozen=True)
class DropIdleClamp(fq.Pass):
    """%s = sigmoid(%x); %y = clamp(%s) {min=0, max=1}  ->  %y = sigmoid(%x)"""

    name: ClassVar[str] = "drop-idle-clamp"
    requires: ClassVar[frozenset[str]] = frozenset({"functional"})

    low: float = 0.0
    high: float = 1.0

    def run(self, graph_module: GraphModule) -> fq.PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            if (
                node.target is not aten.clamp.default
                or node.args[0].target is not aten.sigmoid.default
            ):
                continue
            if tuple(node.args[1:]) == (self.low, self.high):
                node.replace_all_uses_with(node.args[0])
                graph_module.graph.erase_node(node)
                modified = True
        return fq.PassResult(graph_module, modified)


class Gate(nn.Module):
    """A small net with a clamp that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return torch.clamp(torch.sigmoid(x), 0.0, 1.0) * x


def main() -> str:
    """Print the plan and the graph; return the graph's text."""
    torch.manual_seed(0)
    pictures = torch.randn(1, 3, 8, 8)
    pipeline = fq.Pipeline.default("float").insert_after("functionalize", "drop-idle-clamp")
    print(pipeline.plan(), end="\n\n")
    lowered = fq.compile(Gate(), (pictures,), pipeline=pipeline, instruments=["lint", "validate"])
    print(fq.format_graph(lowered.graph_module))
    return fq.format_graph(lowered.graph_module)


if __name__ == "__main__":
    main()
