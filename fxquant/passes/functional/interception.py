"""Run Python code of torch and stop at each C builtin.

    F.interpolate(x, scale_factor=2)  ->  torch._C._nn.upsample_nearest2d(x, None, [2.0, 2.0])

A `TorchFunctionMode` sees every torch function. C builtins go to the handler. Python functions are
entered: a copy of the function runs in which `has_torch_function` says no, since the original
would hand the call straight back. Nothing of torch is patched.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import torch.overrides
from torch.overrides import TorchFunctionMode

Handler = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]

_CHECKS = (
    "has_torch_function",
    "has_torch_function_unary",
    "has_torch_function_variadic",
)
_entered_globals: dict[int, dict[str, Any]] = {}
_bodies: dict[FunctionType, FunctionType] = {}


class Interception(TorchFunctionMode):
    """Hands each builtin to `handler(function, args, kwargs)` and enters Python functions."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler
        self._inside: tuple[Any, tuple[Any, ...]] = (None, ())

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # `Tensor.unflatten` calls the builtin of its base class, which arrives under its own name.
        again = func is self._inside[0] and _same_objects(args, self._inside[1])
        if not isinstance(func, FunctionType) or again:
            return self._handler(func, args, kwargs or {})
        outside, self._inside = self._inside, (func, args)
        try:
            with self:
                return body_of(func)(*args, **(kwargs or {}))
        finally:
            self._inside = outside


def _same_objects(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return len(first) == len(second) and all(map(operator.is_, first, second))


def body_of(function: FunctionType) -> FunctionType:
    """A copy of a function that never hands its call to `__torch_function__`.

    Functions that it holds in its closure are copied likewise: `F.max_pool2d` chooses between two.
    """
    known = _bodies.get(function)
    if known is not None:
        return known
    closure = function.__closure__
    cells = None if closure is None else tuple(CellType() for _ in closure)
    scope = _without_checks(function.__globals__)
    name, defaults = function.__name__, function.__defaults__
    copy = FunctionType(function.__code__, scope, name, defaults, cells)
    copy.__kwdefaults__ = function.__kwdefaults__
    _bodies[function] = copy
    for new, old in zip(cells or (), closure or (), strict=True):
        held = old.cell_contents
        new.cell_contents = body_of(held) if isinstance(held, FunctionType) else held
    return copy


def _without_checks(names: dict[str, Any]) -> dict[str, Any]:
    """The globals of a module as its functions shall see them once they are entered."""
    found = _entered_globals.get(id(names))
    if found is None:
        found = _entered_globals[id(names)] = dict(names)
        for name, value in names.items():
            if name in _CHECKS:
                found[name] = _never
            elif value is torch.overrides:
                found[name] = SimpleNamespace(**{**vars(value), **dict.fromkeys(_CHECKS, _never)})
            elif _is_inner(name, value, names):
                found[name] = body_of(value)
    return found


def _is_inner(name: str, value: Any, names: dict[str, Any]) -> bool:
    """Whether this is a private function of the same module: such a one asks for its caller."""
    private = name.startswith("_") and isinstance(value, FunctionType)
    return private and value.__globals__ is names and "torch" in value.__module__.split(".")


def _never(*_: object) -> bool:
    return False
