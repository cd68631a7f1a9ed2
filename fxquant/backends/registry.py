"""The backends by name, ours and those of installed packages, loaded when first asked for.

A package offers one by the entry-point group `fxquant.backends`, with the name of the backend and a
subclass of `Backend` as the object.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar, overload

from fxquant.backends.base import Backend
from fxquant.errors import InputError, RegistrationError

GROUP = "fxquant.backends"

BackendClass = TypeVar("BackendClass", bound=type[Backend])

_backends: dict[str, type[Backend]] = {}


@overload
def register_backend(cls: BackendClass) -> BackendClass: ...
@overload
def register_backend(*, override: bool) -> Callable[[BackendClass], BackendClass]: ...
def register_backend(
    cls: BackendClass | None = None, *, override: bool = False
) -> BackendClass | Callable[[BackendClass], BackendClass]:
    """Make a backend known by its name; a class decorator.

    Raises:
        RegistrationError: the name is taken and `override` is not set.
    """

    def register(new: BackendClass) -> BackendClass:
        old = _backends.get(new.name)
        if old is not None and not override and _place(old) != _place(new):
            raise RegistrationError(
                f"the backend name {new.name!r} is taken by {_place(old)}; {_place(new)} wants it",
                fix="choose another name, or register with override=True",
            )
        _backends[new.name] = new
        return new

    return register if cls is None else register(cls)


def _place(cls: type[Backend]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def registered_backends() -> list[str]:
    """The names of all backends that are registered or offered by an entry point."""
    return sorted({*_backends, *(point.name for point in entry_points(group=GROUP))})


def get_backend(name: str | Backend) -> Backend:
    """The backend of that name.

    Raises:
        InputError: there is none.
        RegistrationError: the package that offers it cannot be imported.
    """
    if isinstance(name, Backend):
        return name
    if name not in _backends:
        _load(name)
    return _backends[name]()


def _load(name: str) -> None:
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        known = ", ".join(registered_backends()) or "none"
        raise InputError(f"there is no backend {name!r}", fix=f"the known backends are {known}")
    try:
        found = points[0].load()
    except Exception as error:
        raise RegistrationError(
            f"the backend {name!r} ({points[0].value}) cannot be loaded: {error}",
            fix="repair or uninstall the package that offers it",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise RegistrationError(f"the entry point {points[0].value} is not a Backend")
    _backends[name] = found
