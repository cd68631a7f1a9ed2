"""Which modules a target computes as one: what a user of eager quantization lists by hand.

    %conv1 = Conv2d(%x); %bn1 = BatchNorm2d(%conv1); %relu = ReLU(%bn1)
      ->  ["conv1", "bn1", "relu"]

A module belongs to the list of the one before it where it alone reads that one's result, and where
each is called once.
"""

from __future__ import annotations

from collections import Counter

from torch import nn
from torch.fx import GraphModule, Node

from fxquant.ir.edit import get_attribute

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CLAMPS = (nn.ReLU, nn.ReLU6)

PATTERNS: tuple[tuple[tuple[type[nn.Module], ...], ...], ...] = (
    (CONVOLUTIONS, NORMS, CLAMPS),
    (CONVOLUTIONS, NORMS),
    (CONVOLUTIONS, CLAMPS),
    (TRANSPOSED, NORMS, CLAMPS),
    (TRANSPOSED, NORMS),
    (TRANSPOSED, CLAMPS),
    ((nn.Linear,), NORMS, CLAMPS),
    ((nn.Linear,), NORMS),
    ((nn.Linear,), CLAMPS),
    (NORMS, CLAMPS),
)


def fuse_list(graph_module: GraphModule) -> list[list[str]]:
    """The names of modules to fuse, each list as long as can be, in order of the calls."""
    calls = Counter(str(node.target) for node in graph_module.graph.find_nodes(op="call_module"))
    taken: set[str] = set()
    found: list[list[str]] = []
    for node in graph_module.graph.find_nodes(op="call_module"):
        for pattern in PATTERNS:
            names = _match(graph_module, node, pattern)
            if names and all(calls[name] == 1 for name in names) and not taken.intersection(names):
                found.append(names)
                taken.update(names)
                break
    return found


def _match(
    root: GraphModule, first: Node, pattern: tuple[tuple[type[nn.Module], ...], ...]
) -> list[str]:
    names: list[str] = []
    node: Node | None = first
    for kinds in pattern:
        if node is None or node.op != "call_module":
            return []
        if type(get_attribute(root, str(node.target))) not in kinds:
            return []
        names.append(str(node.target))
        node = next(iter(node.users)) if len(node.users) == 1 else None
    return names
