"""Which module called which, kept while a model is followed: see `ir.origin`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from torch import nn

from fxquant.ir.origin import ModuleCall, ModuleKind, Origin

CONTAINERS: tuple[type[nn.Module], ...] = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.ParameterList,
    nn.ParameterDict,
)


class CallRecord:
    """The classes of a model's modules, and its calls as they happen."""

    def __init__(self, model: nn.Module) -> None:
        modules = dict(model.named_modules(remove_duplicate=False))
        tensors = (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        )
        self.origin = Origin(
            {path: kind_of(type(module)) for path, module in modules.items()},
            tensors=frozenset(name for name, _ in tensors),
        )
        self._open: list[int] = []

    @property
    def current(self) -> int | None:
        """Number of the innermost call."""
        return self._open[-1] if self._open else None

    def enter(
        self,
        module: nn.Module,
        path: str,
        args: tuple[object, ...],
        name_of: Callable[[object], str | None],
    ) -> None:
        """A module is called; one that the model does not own belongs to its caller's call."""
        calls = self.origin.calls
        if self.current is not None and calls[self.current].path == path:
            self._open.append(self.current)
            return
        pairs = zip(_parameters(type(module).forward), args, strict=False)
        named = tuple((key, name) for key, value in pairs if (name := name_of(value)) is not None)
        calls.append(ModuleCall(path, self.current, named))
        self._open.append(len(calls) - 1)

    def leave(self) -> None:
        """The innermost call is over."""
        self._open.pop()


def kind_of(cls: type[nn.Module]) -> ModuleKind:
    """What is to be known of a module's class.

    >>> kind_of(nn.ModuleList)
    ModuleKind(name='ModuleList', base='ModuleList', plain=True)
    """
    for base in CONTAINERS:
        if issubclass(cls, base):
            return ModuleKind(cls.__name__, base.__name__, cls.forward is base.forward)
    return ModuleKind(cls.__name__)


@functools.cache
def _parameters(forward: Callable[..., object]) -> tuple[str, ...]:
    """Names of the parameters that a `forward` takes by position."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = list(inspect.signature(forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return ()
    return tuple(each.name for each in parameters if each.kind in positional)
