"""Division in steps: a product with the reciprocal, which has a grid of its own.

div(x, y)   ->   mul(x, reciprocal(y))
"""

from __future__ import annotations

from torch.fx import Node

from fxquant.ir.aten import aten, named_arguments

from .steps import Steps


def division(write: Steps, node: Node) -> Node:
    """Of two values; by a constant it has a kernel."""
    given = named_arguments(node)
    inverse = write(aten.reciprocal.default, given["other"], name="inverse")
    return write(aten.mul.Tensor, given["self"], inverse, name="product")
