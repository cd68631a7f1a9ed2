"""The arguments of an ATen overload in normal form.

    conv2d(x, w, stride=2, padding=(1, 1))
      -> {input: x, weight: w, bias: None, stride: [2, 2], padding: [1, 1], dilation: …, groups: 1}

Scalars in list positions become lists of the declared length, tuples become lists, negative
dimensions count from the front. Written out again, trailing defaults are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload

from fxquant.ir.aten import packet_name

Named = dict[str, Any]


class Parameter(NamedTuple):
    """One argument of a schema."""

    name: str
    is_list: bool
    length: int | None
    kind: str
    keyword_only: bool
    default: Any
    writes: bool


class _Missing:
    """The default of an argument that must be given."""


MISSING = _Missing()
NUMBERS = frozenset({"float", "number"})
# Beside these, `dim` counts the dimensions of the first tensor.
ONE_MORE_DIMENSION = frozenset({"unsqueeze", "stack"})
OWN_DIMENSIONS = frozenset({"cosine_similarity", "diag_embed", "unflatten"})
DIMENSION_NAMES = frozenset({"dim", "dims", "dim0", "dim1"})


@cache
def parameters(target: OpOverload) -> tuple[Parameter, ...]:
    """The arguments of an overload, in order."""
    return tuple(_parameter(argument) for argument in target._schema.arguments)


def _parameter(argument: Any) -> Parameter:
    kind = str(argument.type).removeprefix("Optional[")
    return Parameter(
        argument.name,
        kind.startswith("List["),
        argument.N,
        kind.removesuffix("]"),
        argument.kwarg_only,
        argument.default_value if argument.has_default_value() else MISSING,
        argument.alias_info is not None and argument.alias_info.is_write,
    )


def bind(target: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Named:
    """Every argument by name in schema order, defaults filled in, literals in normal form.

    >>> bind(torch.ops.aten.cumsum.default, ("x", 1), {})
    {'self': 'x', 'dim': 1, 'dtype': None}

    Raises:
        TypeError: an argument is missing, or one too many is given.
    """
    named: Named = {}
    places = parameters(target)
    if len(args) > len(places):
        raise TypeError(f"{target} takes {len(places)} arguments, {len(args)} are given")
    for index, parameter in enumerate(places):
        usual = parameter.default
        value = args[index] if index < len(args) else kwargs.get(parameter.name, usual)
        if value is MISSING:
            raise TypeError(f"{target} needs the argument {parameter.name}")
        named[parameter.name] = _literal(parameter, value)
    unknown = set(kwargs) - set(named)
    if unknown:
        raise TypeError(f"{target} has no argument {', '.join(sorted(unknown))}")
    return named


def _literal(parameter: Parameter, value: Any) -> Any:
    if parameter.is_list:
        if isinstance(value, int) and not isinstance(value, bool):
            return [value] * (parameter.length or 1)
        return list(value) if isinstance(value, tuple | list) else value
    if parameter.kind in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        default = parameter.default
        usual = value == default and not isinstance(default, bool)
        return default if usual else float(value) if parameter.kind == "float" else value
    return value


def spread(target: OpOverload, named: Named) -> tuple[tuple[Any, ...], Named]:
    """Positional and keyword arguments of a call, trailing defaults dropped.

    >>> spread(torch.ops.aten.cumsum.default, {"self": "x", "dim": 1, "dtype": None})
    (('x', 1), {})
    """
    args: list[Any] = []
    kwargs: Named = {}
    wanted = 0
    for parameter in parameters(target):
        value = named[parameter.name]
        usual = same_literal(value, parameter.default)
        if parameter.keyword_only:
            if not usual:
                kwargs[parameter.name] = value
            continue
        args.append(value)
        if not usual:
            wanted = len(args)
    return tuple(args[:wanted]), kwargs


def same_literal(value: Any, default: Any) -> bool:
    """Whether a literal is the default; `0` is neither `False` nor `0.0`."""
    if isinstance(value, list) and isinstance(default, list):
        return value == default and all(map(same_literal, value, default))
    return type(value) is type(default) and bool(value == default)


def count_dimensions(target: OpOverload, named: Named) -> None:
    """Let every dimension argument count from the front, in place."""
    name = packet_name(target).removesuffix("_").removesuffix("_copy")
    given = DIMENSION_NAMES & named.keys()
    if not given or name in OWN_DIMENSIONS:
        return
    tensor = first_tensor(named.values())
    if tensor is None:
        return
    rank = max(tensor.dim(), 1) if name not in ONE_MORE_DIMENSION else tensor.dim() + 1
    for key in given:
        named[key] = _from_front(named[key], rank)


def _from_front(value: Any, rank: int) -> Any:
    if isinstance(value, list):
        return [_from_front(item, rank) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        return value + rank
    return value


def first_tensor(values: Any) -> torch.Tensor | None:
    """The first tensor among values and lists of values."""
    for value in values:
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, list | tuple):
            inner = first_tensor(value)
            if inner is not None:
                return inner
    return None
