"""Code that keeps to a line length: calls break behind their bracket, then after each argument.

self.conv = nn.Conv2d(                      self.conv = nn.Conv2d(
    3, 64, kernel_size=7, stride=2      or      3,
)                                               64, …
                                            )
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

WIDTH = 100
INDENT = 4


@dataclass(frozen=True)
class Group:
    """Something in brackets, with items that may stand on lines of their own.

    Attributes:
        open, items, close: the parts.
        whole: whether it reads best on one line of its own.
    """

    open: str
    items: tuple[Code, ...]
    close: str
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Hole:
    """A number in a `forward` that may become an attribute of the module.

    Attributes:
        name: what the number is, `stride`.
        value: the number itself, or a list of some.
        text: it as code.
        owner: name of the value that is computed with it.
        prefix: stands before it.
    """

    name: str
    value: Any
    text: str
    owner: str
    prefix: str = ""


Code: TypeAlias = str | Group | Hole


def call(callee: str, items: Iterable[Code]) -> Group:
    """A call with its arguments."""
    return Group(f"{callee}(", tuple(items), ")")


def named(name: str, value: Code) -> Code:
    """`name=value`."""
    if isinstance(value, Group):
        return Group(f"{name}={value.open}", value.items, value.close)
    if isinstance(value, Hole):
        return replace(value, prefix=f"{name}={value.prefix}")
    return f"{name}={value}"


def holes(code: Code) -> Iterator[Hole]:
    """The holes of code, in order."""
    if isinstance(code, Hole):
        yield code
    elif isinstance(code, Group):
        for item in code.items:
            yield from holes(item)


def fill(code: Code, codes: Mapping[Any, str]) -> Code:
    """Code with its holes filled: by what `codes` has for them, else by their numbers."""
    if isinstance(code, Hole):
        return code.prefix + codes.get(code, code.text)
    if isinstance(code, Group):
        return Group(code.open, tuple(fill(item, codes) for item in code.items), code.close)
    return code


def flat(code: Code) -> str:
    """Code on one line.

    >>> flat(call("nn.Linear", ["3", named("bias", "False")]))
    'nn.Linear(3, bias=False)'
    """
    if isinstance(code, str):
        return code
    if isinstance(code, Hole):
        return code.prefix + code.text
    return code.open + ", ".join(flat(item) for item in code.items) + code.close


def lines(code: Code, indent: int, prefix: str = "", suffix: str = "") -> list[str]:
    """Code as lines of at most `WIDTH` characters, where brackets allow it."""
    margin = " " * indent
    text = f"{margin}{prefix}{flat(code)}{suffix}"
    if len(text) <= WIDTH or not isinstance(code, Group) or not code.items:
        return [text]
    only = code.items[0]
    if (
        len(code.items) == 1 and isinstance(only, Group) and not _stands_alone(only, indent)
    ):  # both brackets open on one line
        both = Group(code.open + only.open, only.items, only.close + code.close)
        return lines(both, indent, prefix, suffix)
    inner = indent + INDENT
    packed = " " * inner + ", ".join(flat(item) for item in code.items)
    head, tail = f"{margin}{prefix}{code.open}", f"{margin}{code.close}{suffix}"
    if len(packed) <= WIDTH and not packed.lstrip().startswith("*"):
        return [head, packed, tail]
    body = [line for item in code.items for line in lines(item, inner, suffix=",")]
    return [head, *body, tail]


def _stands_alone(code: Group, indent: int) -> bool:
    return code.whole and indent + INDENT + len(flat(code)) <= WIDTH
