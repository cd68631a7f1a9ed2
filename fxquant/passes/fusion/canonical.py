"""Nodes as arithmetic, so that one pattern matches every order of writing.

    x * 0.5 * (1 + e), (x / 2) * (e + 1)     0.5 · x · (1 + e)         product
    (x - m) * rsqrt(v), (x - m) / v.sqrt()   (x - m) · v^-½            product
    relu6(x), x.clamp(0, 6)                  x in 0 … 6                clamp
    x - 3, x + -3                            x + -3                    shift

Inner nodes are opened only where the product or clamp is their one reader: others have to stay.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from fxquant.ir.aten import aten, named_arguments, packet_name
from fxquant.passes.fusion.scalars import Scalar
from fxquant.passes.fusion.wildcards import Hole, is_number
from fxquant.quant.constraints import CLAMPS

PRODUCTS = frozenset(
    {
        aten.mul.Tensor,
        aten.div.Tensor,
        aten.neg.default,
        aten.reciprocal.default,
        aten.pow.Tensor_Scalar,
        aten.sqrt.default,
        aten.rsqrt.default,
    }
)
SHIFTS = {aten.add.Tensor: 1, aten.sub.Tensor: -1}
COMMUTATIVE = frozenset(
    {
        aten.add.Tensor,
        aten.mul.Tensor,
        aten.maximum.default,
        aten.minimum.default,
        aten.eq.Tensor,
        aten.ne.Tensor,
        aten.logical_and.default,
        aten.logical_or.default,
    }
)
HIGHEST_POWER = 4


class Factor(NamedTuple):
    """A value in a product, and its exponent: 1, -1, 0.5 or -0.5, or what `pow` says."""

    value: Node
    exponent: float


class Product:
    """A constant times values with exponents.

    Attributes:
        constant: the product of all literals.
        holes: wildcards among the literals, and whether each multiplies (1) or divides (-1).
        factors: the values.
        opened: the nodes that the product is made of.
    """

    def __init__(self, node: Node, scalar: Scalar) -> None:
        self.constant = 1.0
        self.holes: list[tuple[Hole, int]] = []
        self.factors: list[Factor] = []
        self.opened: set[Node] = set()
        self._scalar = scalar
        self._open(node, 1, top=True)

    @property
    def may_be_one_value(self) -> bool:
        """Whether any value is such a product: itself times a wildcard, or times one."""
        return len(self.factors) == 1 and bool(self.holes or self.constant == 1)

    def _open(self, value: Any, sign: int, top: bool = False) -> None:
        if isinstance(value, Hole):
            self.holes.append((value, sign))
            return
        number = self._scalar(value)
        if number is not None:
            self.constant *= number if sign == 1 else (1 / number if number else math.nan)
        elif top or len(value.users) == 1:
            self._open_node(value, sign)
        else:
            self.factors.append(Factor(value, sign))

    def _open_node(self, node: Node, sign: int) -> None:
        parts = _parts(node, self._scalar)
        if parts is None:
            self.factors.append(Factor(node, sign))
            return
        self.opened.add(node)
        for value, exponent in parts:
            if exponent in (1, -1):
                self._open(value, sign * int(exponent))
            elif float(exponent).is_integer():
                for _ in range(abs(int(exponent))):
                    self._open(value, sign * (1 if exponent > 0 else -1))
            else:
                self.factors.append(Factor(value, sign * exponent))


def _parts(node: Node, scalar: Scalar) -> list[tuple[Any, float]] | None:
    """The operands of a product with their exponents; None for other nodes."""
    if node.target not in PRODUCTS or not _is_float(node) or node.kwargs:
        return None
    first = node.args[0]
    if node.target is aten.mul.Tensor:
        return [(first, 1), (node.args[1], 1)]
    if node.target is aten.div.Tensor:
        return [(first, 1), (node.args[1], -1)]
    if node.target is aten.neg.default:
        return [(first, 1), (-1.0, 1)]
    if node.target is aten.pow.Tensor_Scalar:
        exponent = scalar(node.args[1])
        whole = exponent is not None and float(exponent).is_integer()
        if exponent is None or exponent == 0 or (whole and abs(exponent) > HIGHEST_POWER):
            return None
        return [(first, exponent)]
    return [(first, EXPONENTS[node.target])]


EXPONENTS: dict[object, float] = {
    aten.reciprocal.default: -1,
    aten.sqrt.default: 0.5,
    aten.rsqrt.default: -0.5,
}


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def is_product(node: Node) -> bool:
    """Whether a node multiplies, divides, or takes a power of floats."""
    return node.target in PRODUCTS and _is_float(node)


class Shift(NamedTuple):
    """A value plus a literal; a wildcard among them may be subtracted (sign -1)."""

    value: Node
    amount: Any
    sign: int


def shift_of(node: Node, scalar: Scalar) -> Shift | None:
    """A node as a value plus a literal; None where it is none."""
    sign = SHIFTS.get(node.target)  # type: ignore[call-overload]
    if sign is None or node.kwargs or not isinstance(node.args[0], Node):
        return None
    amount = node.args[1]
    if isinstance(amount, Hole):
        return Shift(node.args[0], amount, sign)
    number = scalar(amount)
    return None if number is None else Shift(node.args[0], sign * number, 1)


class Clamp(NamedTuple):
    """A value cut to a range by one clamp, or by several in a row."""

    value: Node
    low: Any
    high: Any
    opened: tuple[Node, ...]


def clamp_of(node: Node) -> Clamp | None:
    """A node as a clamp of what stands before it, without opening a second one."""
    name = packet_name(node.target) if isinstance(node.target, torch._ops.OpOverload) else ""
    if name not in CLAMPS or not isinstance(node.args[0], Node):
        return None
    known = CLAMPS[name]
    if known is None:
        named = named_arguments(node)
        low = named.get("min_val", named.get("min"))
        high = named.get("max_val", named.get("max"))
        known = (-math.inf if low is None else low, math.inf if high is None else high)
    if any(not (isinstance(bound, Hole) or is_number(bound)) for bound in known):
        return None
    return Clamp(node.args[0], *known, (node,))


def clamps_of(node: Node) -> list[Clamp]:
    """The ways to read a node as one clamp: the longest row of clamps first."""
    first = clamp_of(node)
    found = [] if first is None else [first]
    while found:
        last = found[0]
        inner = clamp_of(last.value) if len(last.value.users) == 1 else None
        if inner is None or any(isinstance(b, Hole) for b in (*last[1:3], *inner[1:3])):
            break
        low = min(max(inner.low, last.low), last.high)
        high = max(min(inner.high, last.high), last.low)
        found.insert(0, Clamp(inner.value, low, high, (*last.opened, *inner.opened)))
    return found


def root_key(node: Node) -> object:
    """Under what a pattern with this root is looked up: its operator, or the kind of arithmetic."""
    if is_product(node):
        return "product"
    if node.target in SHIFTS:
        return "sum"
    return "clamp" if clamp_of(node) is not None else node.target
