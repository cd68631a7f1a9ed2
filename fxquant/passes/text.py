"""The text form of passes: reading `name{option=value,…},name,(nested,list)`.

Values are read by the type of the dataclass field that they fill: numbers, `true`/`false`, `none`,
`[a;b;c]` for tuples, and strings, quoted where they hold a character of the syntax.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from typing import Any

from fxquant.errors import PipelineError
from fxquant.passes.base import Pass
from fxquant.passes.registry import pass_class

OPENING, CLOSING = "{[(", "}])"


def parse_passes(text: str) -> list[Pass]:
    """The passes that a text names.

    Raises:
        PipelineError: bad syntax, unknown names, or option values of the wrong type.
    """
    return [_parse_item(item) for item in split_top(text, ",") if item]


def split_top(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside brackets and quotes.

    >>> split_top('a{x=1,y="p,q"},b', ",")
    ['a{x=1,y="p,q"}', 'b']
    """
    parts, depth, quoted, start, escaped = [], 0, False, 0, False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\" and quoted:
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif not quoted:
            depth += (char in OPENING) - (char in CLOSING)
            if depth < 0:
                raise PipelineError(f"a bracket is closed that was not opened: {text!r}")
            if char == separator and depth == 0:
                parts.append(text[start:position].strip())
                start = position + 1
    if depth or quoted:
        what = "a quote" if quoted else "a bracket"
        raise PipelineError(f"{what} is opened and not closed: {text!r}")
    return [*parts, text[start:].strip()]


def _parse_item(text: str) -> Pass:
    if text.startswith("("):
        from fxquant.passes.pipeline import Pipeline

        if not text.endswith(")"):
            raise PipelineError(f"{text!r} is not a pass or a list of passes")
        return Pipeline(tuple(parse_passes(text[1:-1])))
    name, brace, rest = text.partition("{")
    cls = pass_class(name.strip())
    if not brace:
        return _build(cls, {})
    if not rest.endswith("}"):
        raise PipelineError(f"{text!r} has text behind its options")
    return _build(cls, _parse_options(cls, rest[:-1]))


def _build(cls: type[Pass], options: dict[str, Any]) -> Pass:
    try:
        return cls(**options)
    except TypeError as error:
        raise PipelineError(f"the pass {cls.name} cannot be made from text: {error}") from error


def _parse_options(cls: type[Pass], text: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    options: dict[str, Any] = {}
    for item in split_top(text, ","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise PipelineError(f"option {item!r} of pass {cls.name} has no value")
        if key not in known:
            fix = f"its options are {', '.join(known) or 'none'}"
            raise PipelineError(f"the pass {cls.name} has no option {key!r}", fix=fix)
        options[key] = parse_value(value, known[key], f"option {key!r} of pass {cls.name}")
    return options


def parse_value(text: str, kind: Any, where: str) -> Any:
    """A value of type `kind` from text.

    >>> parse_value("[1;2]", tuple[int, ...], "x")
    (1, 2)
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(text, typing.get_args(kind), where)
    if origin is tuple:
        return _parse_tuple(text, typing.get_args(kind), where)
    if origin is typing.Literal:
        return _parse_literal(text, typing.get_args(kind), where)
    reader = READERS.get(kind)
    if reader is None:
        raise PipelineError(f"{where} cannot be given as text (its type is {kind})")
    try:
        return reader(text)
    except (ValueError, KeyError):
        name = getattr(kind, "__name__", kind)
        raise PipelineError(f"{where} needs a value of type {name}, got {text!r}") from None


def _read_string(text: str) -> str:
    if not text.startswith('"'):
        return text
    return str(json.loads(text))


def _read_none(text: str) -> None:
    if text != "none":
        raise ValueError(text)


READERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text],
    str: _read_string,
    type(None): _read_none,
}


def _parse_union(text: str, kinds: tuple[Any, ...], where: str) -> Any:
    # A string takes any text, so it is tried last.
    for kind in sorted(kinds, key=lambda item: item is str):
        try:
            return parse_value(text, kind, where)
        except PipelineError:
            continue
    names = " or ".join(str(getattr(kind, "__name__", kind)) for kind in kinds)
    raise PipelineError(f"{where} needs a value of type {names}, got {text!r}")


def _parse_tuple(text: str, kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not (text.startswith("[") and text.endswith("]")):
        raise PipelineError(f"{where} needs a list [a;b;…], got {text!r}")
    items = [item for item in split_top(text[1:-1], ";") if item]
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(parse_value(item, kinds[0], where) for item in items)
    if len(items) != len(kinds):
        raise PipelineError(f"{where} needs {len(kinds)} values, got {text!r}")
    return tuple(parse_value(item, kind, where) for item, kind in zip(items, kinds, strict=True))


def _parse_literal(text: str, values: tuple[Any, ...], where: str) -> Any:
    for value in values:
        if str(value) == _read_string(text):
            return value
    raise PipelineError(f"{where} must be one of {', '.join(map(str, values))}, got {text!r}")
