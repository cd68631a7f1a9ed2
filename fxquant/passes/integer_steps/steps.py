"""What writes the steps of one operator, and knows what the target can compute them in."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from fxquant.passes.recurrent.writer import Writer


class Steps(Writer):
    """A writer of nodes that replace one operator.

    Args:
        root: the graph and its tensors.
        origin: the operator.
        operator_name: what it is called in configurations, e.g. `layer_norm`.
        multiplies: whether the target multiplies matrices of which both are computed.
    """

    def __init__(
        self, root: GraphModule, origin: Node, operator_name: str, *, multiplies: bool = True
    ) -> None:
        super().__init__(root, origin, operator_name)
        self.multiplies = multiplies
