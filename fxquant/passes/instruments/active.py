"""Which instruments are on: those of a `with`, of a keyword and of the environment.

    FXQUANT_TIME=1 FXQUANT_LINT=1 FXQUANT_DUMP=stages python convert.py
    fxquant.compile(…, instruments=["time", "lint", "dump=stages"])

One table has the names of both.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ParamSpec, TypeVar

from fxquant.errors import InputError
from fxquant.passes.instruments.base import Instrument
from fxquant.passes.instruments.diff import Diff
from fxquant.passes.instruments.dump import Dump
from fxquant.passes.instruments.lint import Lint
from fxquant.passes.instruments.reproduce import Reproduce
from fxquant.passes.instruments.timing import Timing
from fxquant.passes.instruments.validate import Validate

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
ON = {"", "1", "true"}
OFF = {None, "", "0", "false"}

BY_NAME: Mapping[str, Callable[[str], Instrument]] = {
    "time": lambda value: Timing(printed=True),
    "dump": lambda value: Dump("fxquant-dump" if value in ON else value),
    "diff": lambda value: Diff(None if value in ON else value),
    "reproduce": lambda value: Reproduce("fxquant-failure" if value in ON else value),
    "lint": lambda value: Lint(),
    "validate": lambda value: Validate(),
}

_active: contextvars.ContextVar[tuple[Instrument, ...]] = contextvars.ContextVar(
    "instruments", default=()
)
# One object for each variable in a process, so that the numbers of all pipelines run on.
_of_environment: dict[tuple[str, str], Instrument] = {}


def instrument(given: Instrument | str) -> Instrument:
    """An instrument by its name: `"lint"`, `"dump=folder"`.

    Raises:
        InputError: there is none of that name.
    """
    if isinstance(given, Instrument):
        return given
    name, _, value = given.partition("=")
    if name not in BY_NAME:
        fix = f"the known ones are {', '.join(sorted(BY_NAME))}"
        raise InputError(f"there is no instrument {name!r}", fix=fix)
    return BY_NAME[name](value)


@contextlib.contextmanager
def instruments(*watching: Instrument | str) -> Iterator[None]:
    """Let instruments see every pass that runs inside the `with`."""
    token = _active.set((*_active.get(), *map(instrument, watching)))
    try:
        yield
    finally:
        _active.reset(token)


def active_instruments() -> Sequence[Instrument]:
    """The instruments that are on: those of the enclosing `with` and of the environment.

    Clocks stand last, which is next to the pass: they do not count what the others take.
    """
    found = (*_active.get(), *_from_environment())
    return sorted(found, key=lambda each: isinstance(each, Timing)) if found else found


def _from_environment() -> Iterator[Instrument]:
    for name, make in BY_NAME.items():
        value = os.environ.get(f"FXQUANT_{name.upper()}")
        if value is not None and value not in OFF:
            key = (name, value)
            if key not in _of_environment:
                _of_environment[key] = make(value)
            yield _of_environment[key]


def watched(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Give a function with the keyword `instruments` its meaning: they see every pass in it."""

    @functools.wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = kwargs.get("instruments", ())
        assert isinstance(given, list | tuple)
        with instruments(*given):
            return function(*args, **kwargs)

    return run
