"""Facts about a whole graph, kept in the GraphModule so that no pass needs a global.

`state_of(graph_module)` is the one door to them: the properties that hold (`functional`, `frozen`,
…), the call signature that trace found, the target whose constraints annotate obeys.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch.fx import GraphModule

KEY = "fxquant"


@dataclass
class GraphState:
    """What is known of a graph as a whole.

    Attributes:
        properties: names of the properties that hold now.
        signature: the `tracing.signature.Signature` of the user's call.
        target: name of the backend that the graph is prepared for.
        constraints: that backend's `quant.constraints.ConstraintTable`.
        config: the user's `quant.config.QuantConfig`.
        notes: remarks of passes by pass name, shown in reports.
        stayed_float: `report.StayedFloat` rows of annotate.
        origin: the `ir.origin.Origin` of a traced model: its modules and their calls.
        islands: node name -> why it computes in float between integers.
    """

    properties: set[str] = field(default_factory=set)
    signature: Any = None
    target: str | None = None
    constraints: Any = None
    config: Any = None
    notes: dict[str, list[str]] = field(default_factory=dict)
    stayed_float: tuple[Any, ...] = ()
    origin: Any = None
    islands: dict[str, str] = field(default_factory=dict)

    def copy(self) -> GraphState:
        """An independent copy; what is immutable is shared."""
        notes = {name: list(lines) for name, lines in self.notes.items()}
        islands = dict(self.islands)
        return replace(self, properties=set(self.properties), notes=notes, islands=islands)


def state_of(graph_module: GraphModule) -> GraphState:
    """The state of a graph, made empty on first use."""
    state = graph_module.meta.get(KEY)
    if not isinstance(state, GraphState):
        state = GraphState()
        graph_module.meta[KEY] = state
    return state


def copy_state(source: GraphModule, target: GraphModule) -> None:
    """Give `target` an independent copy of `source`'s state."""
    target.meta[KEY] = state_of(source).copy()
