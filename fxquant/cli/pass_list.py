"""`fxquant passes`: every pass that is registered, with its options and its contract.

fuse-conv-bn
    Fold an evaluated batch norm into the convolution or linear layer before it.
    requires functional, shapes; establishes bn-folded; close(0.0001)
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from typing import Annotated

import typer

from fxquant.backends.registry import get_backend, registered_backends
from fxquant.errors import RegistrationError
from fxquant.passes.base import Pass, format_option
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import registered_passes

SHIPPED = ("float", "ptq", "freeze")


def list_passes(
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            "--plan",
            help=f"Show what a pipeline runs: {', '.join(SHIPPED)}, or a text of passes.",
        ),
    ] = None,
) -> None:
    """List the registered passes, or show what a pipeline will run."""
    for name in registered_backends():
        with contextlib.suppress(RegistrationError):  # a broken package must not hide the others
            get_backend(name)  # which registers the passes of its own
    if pipeline is None:
        typer.echo("\n".join(describe(cls) for cls in registered_passes().values()))
    else:
        chosen = Pipeline.default if pipeline in SHIPPED else Pipeline.parse
        typer.echo(chosen(pipeline).plan())


def describe(cls: type[Pass]) -> str:
    """A pass in three lines: name and options, what it does, its contract."""
    contract = [
        f"{label} {', '.join(sorted(names))}"
        for label in ("requires", "establishes", "invalidates")
        if (names := getattr(cls, label))
    ]
    lines = [cls.name + _options(cls), _summary(cls), "; ".join([*contract, str(cls.semantics)])]
    return "\n    ".join(lines)


def _options(cls: type[Pass]) -> str:
    """The fields of a pass with their defaults: `{limit=6}`."""
    shown = [_option(field) for field in dataclasses.fields(cls)]
    return "{" + ",".join(shown) + "}" if shown else ""


def _option(field: dataclasses.Field[object]) -> str:
    if field.default is dataclasses.MISSING:
        return f"{field.name}=…"
    return f"{field.name}={format_option(field.default)}"


def _summary(cls: type[Pass]) -> str:
    """The first line of the module, where our passes say what they do; of the class for others."""
    ours = cls.__module__.startswith("fxquant.")
    text = inspect.getdoc(inspect.getmodule(cls)) if ours else inspect.getdoc(cls)
    return (text or "").partition("\n")[0]
