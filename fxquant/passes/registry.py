"""The passes by name: ours, the user's, and those of installed packages.

A package offers passes by the entry-point group `fxquant.passes`; they are loaded when a name is
first looked up. A second pass under a taken name is an error unless it says `override=True`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar, overload

from fxquant.errors import PipelineError, RegistrationError
from fxquant.passes.base import Pass

GROUP = "fxquant.passes"
OURS = "fxquant.passes.pipelines"

PassClass = TypeVar("PassClass", bound=type[Pass])

_passes: dict[str, type[Pass]] = {}
_loaded: set[str] = set()


@overload
def register_pass(cls: PassClass) -> PassClass: ...
@overload
def register_pass(*, override: bool) -> Callable[[PassClass], PassClass]: ...
def register_pass(
    cls: PassClass | None = None, *, override: bool = False
) -> PassClass | Callable[[PassClass], PassClass]:
    """Make a pass known by its name; a class decorator.

    Args:
        cls: the pass, a frozen dataclass with a `name`.
        override: take the name away from the pass that has it.

    Raises:
        RegistrationError: the name is taken.
    """

    def register(new: PassClass) -> PassClass:
        _add(new, override)
        return new

    return register if cls is None else register(cls)


def _add(new: type[Pass], override: bool) -> None:
    old = _passes.get(new.name)
    if old is not None and not override and _place(old) != _place(new):
        raise RegistrationError(
            f"the pass name {new.name!r} is taken by {_place(old)}; {_place(new)} wants it too",
            fix="choose another name, or register with override=True",
        )
    _passes[new.name] = new


def _place(cls: type[Pass]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def registered_passes() -> dict[str, type[Pass]]:
    """Every known pass by name, in alphabetical order."""
    _load()
    return dict(sorted(_passes.items()))


def pass_class(name: str) -> type[Pass]:
    """The pass registered under a name.

    Raises:
        PipelineError: no pass has that name.
    """
    _load()
    if name not in _passes:
        raise PipelineError(
            f"there is no pass named {name!r}",
            fix=f"the known passes are {', '.join(sorted(_passes))}",
        )
    return _passes[name]


def passes_establishing(wanted: str) -> list[str]:
    """The names of the passes that could establish a property."""
    return [name for name, cls in registered_passes().items() if wanted in cls.establishes]


def _load() -> None:
    if OURS not in _loaded:
        _loaded.add(OURS)
        importlib.import_module(OURS)
    for point in entry_points(group=GROUP):
        if point.value not in _loaded:
            _loaded.add(point.value)
            _load_entry(point.value, point.load)


def _load_entry(value: str, load: Callable[[], object]) -> None:
    try:
        found = load()
    except Exception as error:
        raise RegistrationError(
            f"the entry point {value!r} of group {GROUP} cannot be loaded: {error}",
            fix="repair or uninstall the package that offers it",
        ) from error
    if isinstance(found, type) and issubclass(found, Pass):
        _add(found, override=False)
