"""What `dynamic_shapes` says: which dimensions of the inputs have a name instead of a size.

    dynamic_shapes={"x": {0: "batch"}, "mask": {0: "batch", 1: torch.export.Dim("length", max=64)}}

It is read as `torch.export` reads it; a plain string is a dimension without bounds.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxquant.errors import InputError, Problem

FACTORS = ((2, 3), (5, 7), (11, 13), (17, 19), (23, 29), (31, 37), (41, 43), (47, 53))
"""By what the example's sizes are multiplied to try others: no two dimensions alike."""

Sizes = dict[str, int]
"""The size of each named dimension."""


@dataclass(frozen=True)
class Dimension:
    """A dimension with a name: its size in the example, and between which bounds it may be."""

    name: str
    size: int
    low: int = 1
    high: int | None = None

    def holds(self, size: int) -> bool:
        """Whether a size is within the bounds."""
        return self.low <= size and (self.high is None or size <= self.high)

    @property
    def bounds(self) -> str:
        """The bounds as text."""
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"


@dataclass(frozen=True)
class _Entry:
    """One dimension of one input as the user gave it."""

    place: str
    axis: int
    size: int
    name: str
    low: int
    high: int | None


def read_dynamic_shapes(
    given: Any, parameters: Sequence[str], inputs: Mapping[str, torch.Tensor]
) -> tuple[tuple[Dimension, ...], dict[str, tuple[str | None, ...]]]:
    """The named dimensions, and for each input the name of each of its dimensions or None.

    Args:
        given: a dict by input, or a sequence in the order of the model's parameters. Each entry
            is a dict from dimension to name, a sequence with a name or None for each dimension, or
            None. A name is a string or a `torch.export.Dim`.
        parameters: the names of the parameters of the model's forward.
        inputs: the tensors by name; those inside a container have a path such as `options.mask`.

    Raises:
        InputError: an unknown input, a dimension that it lacks, one name with two sizes, …: all
            of them.
    """
    problems: list[Problem] = []
    found: list[_Entry] = []
    for place, spec in _by_input(given, parameters, inputs, problems):
        found.extend(_entries(place, inputs[place], spec, problems))
    known: dict[str, Dimension] = {}
    for entry in found:
        _add(known, entry, problems)
    if problems:
        raise InputError("dynamic_shapes does not fit the example inputs", problems=problems)
    names: dict[str, list[str | None]] = {
        place: [None] * tensor.dim() for place, tensor in inputs.items()
    }
    for entry in found:
        names[entry.place][entry.axis] = entry.name
    return tuple(known.values()), {place: tuple(each) for place, each in names.items()}


def _by_input(
    given: Any, parameters: Sequence[str], inputs: Mapping[str, Any], problems: list[Problem]
) -> Iterator[tuple[str, Any]]:
    if not isinstance(given, Mapping | list | tuple):
        what = f"it is {given!r}, neither a dict by input nor a sequence"
        problems.append(Problem(what, fix='write {"x": {0: "batch"}}'))
        return
    if not isinstance(given, Mapping):
        given = dict(zip(parameters, given, strict=False))
    for place, spec in given.items():
        if spec is None:
            continue
        if place in inputs:
            yield place, spec
            continue
        inside = _inside(str(place), spec, inputs)
        if inside is not None:
            yield from _by_input(inside, parameters, inputs, problems)
            continue
        close = difflib.get_close_matches(str(place), inputs, n=1)
        fix = f"did you mean {close[0]!r}?" if close else f"the inputs are {', '.join(inputs)}"
        problems.append(Problem(f"there is no input {place!r}", fix=fix))


def _inside(place: str, spec: Any, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a container's entry says of the tensors in it."""
    if not any(name.startswith(f"{place}.") for name in inputs):
        return None
    if not isinstance(spec, Mapping | list | tuple):
        return None
    pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
    return {f"{place}.{key}": each for key, each in pairs}


def _entries(
    place: str, tensor: torch.Tensor, spec: Any, problems: list[Problem]
) -> Iterator[_Entry]:
    if not isinstance(spec, Mapping | list | tuple):
        fix = 'write {0: "batch"}'
        problems.append(Problem(f"{place}: {spec!r} is neither a dict nor a sequence", fix=fix))
        return
    pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
    for axis, dimension in pairs:
        if not isinstance(axis, int) or not -tensor.dim() <= axis < tensor.dim():
            what = f"{place} has no dimension {axis!r}, it has {tensor.dim()}"
            problems.append(Problem(what))
            continue
        size = tensor.shape[axis]
        bounds = _bounds(dimension, f"{place}_{axis % tensor.dim()}", size)
        if isinstance(bounds, str):
            problems.append(Problem(f"{place}, dimension {axis}: {bounds}"))
        elif bounds is not None:
            yield _Entry(place, axis % tensor.dim(), size, *bounds)


def _bounds(dimension: Any, usual: str, size: int) -> tuple[str, int, int | None] | str | None:
    """Name and bounds; None for a dimension that stays as it is, a string says what is wrong."""
    if dimension is None:
        return None
    if isinstance(dimension, int):
        return None if dimension == size else f"its size is {size}, not {dimension}"
    if isinstance(dimension, str):
        good = dimension.isidentifier()
        return (dimension, 1, None) if good else f"{dimension!r} is no name"
    hint = str(getattr(getattr(dimension, "type", None), "name", ""))
    if hint in {"AUTO", "DYNAMIC"}:
        return usual, 1, None
    if hint == "STATIC":
        return None
    name = getattr(dimension, "__name__", None)
    low, high = getattr(dimension, "min", None), getattr(dimension, "max", None)
    if name is None or low is None or "Derived" in type(dimension).__name__:
        return f"{dimension!r} is no name of a dimension"
    bounded = isinstance(high, int) and high < 2**31
    return str(name), max(int(low), 1), int(high) if bounded and high is not None else None


def _add(known: dict[str, Dimension], entry: _Entry, problems: list[Problem]) -> None:
    old = known.get(entry.name)
    new = Dimension(entry.name, entry.size, entry.low, entry.high)
    if old is None:
        known[entry.name] = old = new
    if old.size != entry.size:
        what = f"{entry.name} is {old.size} and, in {entry.place}, {entry.size}"
        problems.append(Problem(what, fix="give each size its own name"))
    elif not new.holds(entry.size):
        problems.append(Problem(f"{entry.name} is {entry.size}, not {new.bounds}"))


def trials(dimensions: Sequence[Dimension]) -> tuple[Sizes, Sizes]:
    """Two further sizes for all dimensions: not 1, which torch treats otherwise, nor the largest.

    >>> trials([Dimension("batch", 1), Dimension("length", 8, high=64)])
    ({'batch': 2, 'length': 40}, {'batch': 3, 'length': 56})
    """
    pairs = [_two_sizes(item, number) for number, item in enumerate(dimensions)]
    names = [item.name for item in dimensions]
    first = dict(zip(names, (pair[0] for pair in pairs), strict=True))
    return first, dict(zip(names, (pair[1] for pair in pairs), strict=True))


def _two_sizes(item: Dimension, number: int) -> tuple[int, int]:
    wanted = [item.size * factor for factor in FACTORS[number % len(FACTORS)]]
    good = [size for size in wanted if item.holds(size) and size != item.high]
    if len(good) == len(wanted):
        return good[0], good[1]
    high = max(wanted) if item.high is None else item.high
    usual = range(max(item.low, 2), max(item.low, high) + 8)
    others = [size for size in (*good, *usual, 1) if item.holds(size)]
    inner = [size for size in dict.fromkeys(others) if size != item.high]
    first, second, *_ = (*inner, item.high or high, high)
    return first, second


def largest(dimensions: Sequence[Dimension]) -> tuple[Sizes, ...]:
    """The largest size of every dimension, that of the example where there is no bound.

    Returns:
        Nothing if no dimension has a bound.
    """
    bounded = any(item.high is not None for item in dimensions)
    return ({item.name: item.high or item.size for item in dimensions},) if bounded else ()
