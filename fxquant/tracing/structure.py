"""Nested Python values taken apart into tensors, and put together again.

    (x, {"mask": m, "scale": 2.0})  ->  leaves [x, m] and
    Sequence(tuple, (Leaf(0), Mapping(dict, ("mask", "scale"), (Leaf(1), Fixed(2.0)))))

Tensors are leaves; everything else is fixed at trace time, because Python code may have branched on
it. A later call with another fixed value is refused instead of computing something else.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from fxquant.errors import InputError


@dataclass(frozen=True)
class Leaf:
    """A tensor: its place in the flat list."""

    index: int


@dataclass(frozen=True)
class Fixed:
    """A value that is not a tensor: part of the program, not of its inputs."""

    value: Any


@dataclass(frozen=True)
class Sequence:
    """A list, tuple or named tuple."""

    kind: type
    children: tuple[Structure, ...]


@dataclass(frozen=True)
class Mapping:
    """A dict or a dict-like class."""

    kind: type
    keys: tuple[Any, ...]
    children: tuple[Structure, ...]


@dataclass(frozen=True)
class Record:
    """A dataclass."""

    kind: type
    fields: tuple[str, ...]
    children: tuple[Structure, ...]


Structure: TypeAlias = Leaf | Fixed | Sequence | Mapping | Record

FIXED = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Size,
    enum.Enum,
    slice,
    range,
    type(Ellipsis),
    set,
    frozenset,
)


def is_record(value: object) -> bool:
    """Whether a value is a dataclass instance (and not a class)."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def children_of(value: Any) -> list[tuple[str, Any]] | None:
    """The named parts of a container, or None for a leaf or a fixed value.

    >>> children_of((1, 2))
    [('0', 1), ('1', 2)]
    >>> children_of({"a": 1})
    [('a', 1)]
    """
    if isinstance(value, MappingABC):
        return [(str(key), value[key]) for key in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(name, getattr(value, name)) for name in value._fields]
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return [(str(index), item) for index, item in enumerate(value)]
    if is_record(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None


def flatten(value: Any, name: str, add: Callable[[str, torch.Tensor], int]) -> Structure:
    """Take a value apart; `add(name, tensor)` keeps a leaf and tells its index.

    Raises:
        InputError: a part is neither a tensor, a container of them nor a plain value.
    """
    if isinstance(value, torch.Tensor):
        return Leaf(add(name, value))
    parts = children_of(value)
    if parts is None:
        if isinstance(value, FIXED):
            return Fixed(value)
        raise InputError(
            f"{name} is a {type(value).__qualname__}, which is neither a tensor, a plain value nor "
            "a tuple, list, dict or dataclass of them",
            fix="pass and return tensors in tuples, lists, dicts or dataclasses",
        )
    children = tuple(flatten(part, f"{name}.{key}", add) for key, part in parts)
    if isinstance(value, MappingABC):
        return Mapping(type(value), tuple(value), children)
    if is_record(value):
        return Record(type(value), tuple(key for key, _ in parts), children)
    return Sequence(type(value), children)


def unflatten(structure: Structure, leaves: Any) -> Any:
    """The value that `flatten` took apart, made of new leaves."""
    match structure:
        case Leaf(index):
            return leaves[index]
        case Fixed(value):
            return value
        case Sequence(kind, children):
            return _new_sequence(kind, [unflatten(child, leaves) for child in children])
        case Mapping(kind, keys, children):
            items = {k: unflatten(c, leaves) for k, c in zip(keys, children, strict=True)}
            return _new_mapping(kind, items)
        case Record(kind, fields, children):
            items = {k: unflatten(c, leaves) for k, c in zip(fields, children, strict=True)}
            return _new_record(kind, items)


def match(structure: Structure, value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of `value`, which must be built as `structure` says.

    Raises:
        InputError: another container, another length or key, or another fixed value.
    """
    if isinstance(structure, Leaf):
        yield name, value
        return
    if isinstance(structure, Fixed):
        if not _same(structure.value, value):
            raise InputError(
                f"{name} is {_brief(value)}, but the model was traced with "
                f"{_brief(structure.value)}",
                fix="values that are not tensors are fixed at trace time: trace again with it",
            )
        return
    parts = children_of(value)
    wanted = _keys(structure)
    if parts is None or [key for key, _ in parts] != wanted:
        parts = _reorder(parts, wanted)
    if parts is None:
        raise InputError(
            f"{name} is {_brief(value)}, but the model was traced with a "
            f"{structure.kind.__qualname__} of {', '.join(wanted) or 'nothing'}"
        )
    for child, (key, part) in zip(structure.children, parts, strict=True):
        yield from match(child, part, f"{name}.{key}")


def _reorder(parts: list[tuple[str, Any]] | None, wanted: list[str]) -> Any:
    if parts is None or sorted(key for key, _ in parts) != sorted(wanted):
        return None
    table = dict(parts)
    return [(key, table[key]) for key in wanted]


def _keys(structure: Sequence | Mapping | Record) -> list[str]:
    if isinstance(structure, Mapping):
        return [str(key) for key in structure.keys]
    if isinstance(structure, Record):
        return list(structure.fields)
    fields = getattr(structure.kind, "_fields", range(len(structure.children)))
    return [str(field) for field in fields]


def _same(expected: Any, value: Any) -> bool:
    if isinstance(value, torch.Tensor) or isinstance(expected, bool) != isinstance(value, bool):
        return False
    return bool(expected == value)


def _brief(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__qualname__}"


def _new_sequence(kind: type, items: list[Any]) -> Any:
    if hasattr(kind, "_fields"):
        return kind(*items)
    if kind.__module__ == "torch.return_types":
        return kind(items)
    return items if kind is list else tuple(items) if kind is tuple else kind(items)


def _new_mapping(kind: type, items: dict[Any, Any]) -> Any:
    if kind is dict:
        return items
    if dataclasses.is_dataclass(kind):
        return kind(**items)
    return kind(items)


def _new_record(kind: type, items: dict[str, Any]) -> Any:
    fields = dataclasses.fields(kind)
    value = kind(**{field.name: items[field.name] for field in fields if field.init})
    for field in fields:
        if not field.init:
            object.__setattr__(value, field.name, items[field.name])
    return value
