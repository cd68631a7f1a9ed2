"""A fusion without replacement: its operators stay and are one for the quantization.

    %conv = conv2d(%x, @w)            !group conv-hardswish ends at %hardswish
    %y = hardswish(%conv)

Where a target names the fusion in its constraint table, annotate lets the inner values unobserved,
as before a fused activation. Elsewhere the mark means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

KEY = "group"


@dataclass(frozen=True)
class FusedGroup:
    """Which group an inner node belongs to.

    Attributes:
        name: of the fusion.
        end: name of the node that ends the group.
    """

    name: str
    end: str

    def __str__(self) -> str:
        return f"group {self.name} ends at %{self.end}"


def group_of(node: Node) -> FusedGroup | None:
    """The group of which a node is an inner one."""
    found = node.meta.get(KEY)
    return found if isinstance(found, FusedGroup) else None
