"""Run Python code of torch and stop at each C builtin.

    F.interpolate(x, scale_factor=2)  ->  torch._C._nn.upsample_nearest2d(x, None, [2.0, 2.0])

A `TorchFunctionMode` sees every torch function. C builtins go to the handler. Python functions are
entered: a copy of the function runs in which `has_torch_function` says no, since the original
would hand the call straight back. Nothing of torch is patched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import CellType, FunctionType
from typing import Any

from torch.overrides import TorchFunctionMode

Handler = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]

_CHECKS = (
    "has_torch_function",
    "has_torch_function_unary",
    "has_torch_function_variadic",
)
_entered_globals: dict[int, dict[str, Any]] = {}


class Interception(TorchFunctionMode):
    """Hands each builtin to `handler(function, args, kwargs)` and enters Python functions."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler
        self._inside: FunctionType | None = None

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # `Tensor.unflatten` calls the builtin of its base class, which arrives under its own name.
        if not isinstance(func, FunctionType) or func is self._inside:
            return self._handler(func, args, kwargs or {})
        outside, self._inside = self._inside, func if func.__module__ == "torch._tensor" else None
        try:
            with self:
                return body_of(func)(*args, **(kwargs or {}))
        finally:
            self._inside = outside


@cache
def body_of(function: FunctionType) -> FunctionType:
    """A copy of a function that never hands its call to `__torch_function__`."""
    copy = FunctionType(
        function.__code__,
        _without_checks(function.__globals__),
        function.__name__,
        function.__defaults__,
        tuple(_entered_cell(cell) for cell in function.__closure__ or ()) or None,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _entered_cell(cell: CellType) -> CellType:
    """A function held in a closure is entered too: `F.max_pool2d` chooses between two of them."""
    content = cell.cell_contents
    return CellType(body_of(content)) if isinstance(content, FunctionType) else cell


def _without_checks(names: dict[str, Any]) -> dict[str, Any]:
    found = _entered_globals.get(id(names))
    if found is None:
        found = dict(names)
        found.update({name: _never for name in _CHECKS if name in names})
        _entered_globals[id(names)] = found
    return found


def _never(*_: object) -> bool:
    return False
