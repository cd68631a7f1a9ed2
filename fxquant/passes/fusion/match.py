"""A place of a graph where a pattern stands, as its check and its replacement see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.edit import is_attribute, tensor_at


@dataclass(frozen=True)
class Match:
    """What the parameters of a pattern stand for at one place.

    Attributes:
        name: of the fusion.
        root: the graph.
        values: parameter name -> node of the graph, literal, or None.
        outputs: the nodes whose values the replacement gives.
        nodes: all nodes that the match covers, in order.
    """

    name: str
    root: GraphModule
    values: Mapping[str, Any]
    outputs: tuple[Node, ...]
    nodes: tuple[Node, ...]

    def __getitem__(self, parameter: str) -> Any:
        """The node or literal that a parameter stands for."""
        return self.values[parameter]

    def is_constant(self, parameter: str) -> bool:
        """Whether a parameter stands for a stored tensor."""
        return is_attribute(self.values[parameter])

    def tensor(self, parameter: str) -> Tensor:
        """The stored tensor that a parameter stands for."""
        return tensor_at(self.root, self.values[parameter])

    def shape(self, parameter: str) -> tuple[int, ...]:
        """The shape of a tensor parameter's value."""
        return tuple(int(size) for size in self.values[parameter].meta["val"].shape)

    def __str__(self) -> str:
        parts = [f"{name}={_text(value)}" for name, value in self.values.items()]
        return f"{self.name}({', '.join(parts)}) at %{self.outputs[0].name}"


def _text(value: Any) -> str:
    if isinstance(value, Node):
        return f"@{value.target}" if value.op == "get_attr" else f"%{value.name}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
