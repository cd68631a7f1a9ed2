"""How each node of a graph reads, looked up once: as a product, a shift, a clamp, by its arguments.

Every pattern that is laid over a node asks the same, so the answers are kept while the graph stays
as it is.
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from fxquant.ir.aten import argument_names, named_arguments, overload
from fxquant.passes.fusion.canonical import (
    Clamp,
    Product,
    Shift,
    clamps_of,
    is_product,
    root_key,
    shift_of,
)
from fxquant.passes.fusion.scalars import scalar_in


class Readings:
    """The readings of the nodes of one graph."""

    def __init__(self, root: GraphModule) -> None:
        self.scalar = scalar_in(root)
        self._keys: dict[Node, object] = {}
        self._products: dict[Node, Product] = {}
        self._are_products: dict[Node, bool] = {}
        self._shifts: dict[Node, Shift | None] = {}
        self._clamps: dict[Node, list[Clamp]] = {}
        self._arguments: dict[Node, dict[str, Any]] = {}

    def clear(self) -> None:
        """Forget everything: the graph has changed."""
        tables: tuple[dict[Node, Any], ...] = (self._keys, self._products, self._are_products)
        for table in (*tables, self._shifts, self._clamps, self._arguments):
            table.clear()

    def key(self, node: Node) -> object:
        """Under what the node is looked up."""
        found = self._keys.get(node)
        if found is None:
            found = self._keys[node] = root_key(node)
        return found

    def product(self, node: Node) -> Product:
        """The node as a product; by itself where it is none."""
        found = self._products.get(node)
        if found is None:
            found = self._products[node] = Product(node, self.scalar)
        return found

    def is_product(self, node: Node) -> bool:
        """Whether the node multiplies, divides, or takes a power of floats."""
        found = self._are_products.get(node)
        if found is None:
            found = self._are_products[node] = is_product(node)
        return found

    def is_open_product(self, node: Node) -> bool:
        """Whether the node is a product that other nodes may stand for."""
        return self.is_product(node) and self.product(node).may_be_one_value

    def shift(self, node: Node) -> Shift | None:
        """The node as a value plus a literal."""
        if node not in self._shifts:
            self._shifts[node] = shift_of(node, self.scalar)
        return self._shifts[node]

    def clamps(self, node: Node) -> list[Clamp]:
        """The node as a clamp, the longest row first."""
        found = self._clamps.get(node)
        if found is None:
            found = self._clamps[node] = clamps_of(node)
        return found

    def arguments(self, node: Node) -> dict[str, Any]:
        """The arguments of an ATen operator by name, in the order of its schema."""
        found = self._arguments.get(node)
        if found is None:
            named = named_arguments(node)
            found = {name: named[name] for name in argument_names(overload(node)) if name in named}
            self._arguments[node] = found
        return found
