"""How an operator's attributes change when the dimensions that they speak of change places.

concatenation {axis=1}  NCHW -> NHWC     {axis=3}
mean {axis=(2,3)}                        {axis=(1,2)}
pad {paddings=((0,0),(0,0),(1,1),(2,2))} {paddings=((0,0),(1,1),(2,2),(0,0))}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .layouts import Order

Orders = Mapping[str, Order]  # by parameter, and that of the result under "result"
Change = Callable[[Any, Orders], Any]


def place_of(name: str = "x") -> Change:
    """A dimension of the value `name`."""

    def change(axis: int, orders: Orders) -> int:
        return orders[name].index(int(axis) % len(orders[name]))

    return change


def places_of(name: str = "x") -> Change:
    """Several dimensions of the value `name`."""
    place = place_of(name)

    def change(axes: Any, orders: Orders) -> tuple[int, ...]:
        several = axes if isinstance(axes, list | tuple) else (axes,)
        return tuple(sorted(place(axis, orders) for axis in several))

    return change


def each_of(name: str = "x") -> Change:
    """One entry for each dimension of the value `name`."""

    def change(entries: Any, orders: Orders) -> tuple[Any, ...]:
        return tuple(entries[axis] for axis in orders[name])

    return change


def bits_of(name: str = "x") -> Change:
    """One bit for each dimension of the value `name`.

    >>> bits_of()(0b0010, {"x": (0, 2, 3, 1)})
    8
    """

    def change(mask: int, orders: Orders) -> int:
        return sum((mask >> axis & 1) << place for place, axis in enumerate(orders[name]))

    return change


def turned(name: str) -> Change:
    """Whether the last two dimensions of `name` are taken the other way round."""

    def change(flag: bool, orders: Orders) -> bool:
        *_, rows, columns = orders[name]
        return bool(flag) != (rows > columns)

    return change
