"""Code that keeps to a line length: calls break behind their bracket, then after each argument.

self.conv = nn.Conv2d(                      self.conv = nn.Conv2d(
    3, 64, kernel_size=7, stride=2      or      3,
)                                               64, …
                                            )
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

WIDTH = 100
INDENT = 4


@dataclass(frozen=True)
class Group:
    """Something in brackets, with items that may stand on lines of their own."""

    open: str
    items: tuple[Code, ...]
    close: str


Code: TypeAlias = str | Group


def call(callee: str, items: Iterable[Code]) -> Group:
    """A call with its arguments."""
    return Group(f"{callee}(", tuple(items), ")")


def named(name: str, value: Code) -> Code:
    """`name=value`."""
    if isinstance(value, Group):
        return Group(f"{name}={value.open}", value.items, value.close)
    return f"{name}={value}"


def flat(code: Code) -> str:
    """Code on one line.

    >>> flat(call("nn.Linear", ["3", named("bias", "False")]))
    'nn.Linear(3, bias=False)'
    """
    if isinstance(code, str):
        return code
    return code.open + ", ".join(flat(item) for item in code.items) + code.close


def lines(code: Code, indent: int, prefix: str = "", suffix: str = "") -> list[str]:
    """Code as lines of at most `WIDTH` characters, where brackets allow it."""
    margin = " " * indent
    text = f"{margin}{prefix}{flat(code)}{suffix}"
    if len(text) <= WIDTH or isinstance(code, str) or not code.items:
        return [text]
    only = code.items[0]
    if len(code.items) == 1 and isinstance(only, Group):  # both brackets open on one line
        both = Group(code.open + only.open, only.items, only.close + code.close)
        return lines(both, indent, prefix, suffix)
    inner = indent + INDENT
    packed = " " * inner + ", ".join(flat(item) for item in code.items)
    head, tail = f"{margin}{prefix}{code.open}", f"{margin}{code.close}{suffix}"
    if len(packed) <= WIDTH and not packed.lstrip().startswith("*"):
        return [head, packed, tail]
    body = [line for item in code.items for line in lines(item, inner, suffix=",")]
    return [head, *body, tail]
