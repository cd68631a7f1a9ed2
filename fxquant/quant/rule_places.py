"""Where a rule was written, for error messages: a line of Python or of YAML.

rule op=gelu -> int8 (train.py:12): matches no node
rule op=gelu -> int8 (mixed.yaml:4): matches no node
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Key = tuple[str | int, ...]

PACKAGE = __name__.partition(".")[0]


def calling_line(depth: int) -> str:
    """The file and line that called, so many frames up; empty where that is this package.

    Args:
        depth: 1 is the caller of the function that asks.
    """
    frame = sys._getframe(depth + 1)
    if str(frame.f_globals.get("__name__", "")).partition(".")[0] == PACKAGE:
        return ""
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def yaml_lines(text: str, name: str) -> dict[Key, str]:
    """The line of every value in a YAML text, by the keys and indices that lead there.

    >>> yaml_lines("rules:\\n- op: add", "mixed.yaml")["rules", 0]
    'mixed.yaml:2'
    """
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    return {} if tree is None else {key: f"{name}:{line}" for key, line in _lines(tree, ())}


def _lines(tree: Any, key: Key) -> Iterator[tuple[Key, int]]:
    if isinstance(tree, yaml.MappingNode):
        for name, value in tree.value:
            inner = (*key, str(name.value))
            yield inner, name.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(tree, yaml.SequenceNode):
        for place, value in enumerate(tree.value):
            yield (*key, place), value.start_mark.line + 1
            yield from _lines(value, (*key, place))


def located(text: str, place: str) -> str:
    """A text with its place behind it, where it is known.

    >>> located("rule op=add -> int8", "mixed.yaml:2"), located("rule op=add -> int8", "")
    ('rule op=add -> int8 (mixed.yaml:2)', 'rule op=add -> int8')
    """
    return f"{text} ({place})" if place else text
