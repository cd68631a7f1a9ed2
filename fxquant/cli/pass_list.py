"""`fxquant passes`: every pass that is registered, with its contract and its options."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fxquant.passes.base import Pass, format_option
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import registered_passes


def list_passes(
    pipeline: Annotated[
        str | None,
        typer.Option(
            help="Show the plan of a pipeline instead: float, ptq, freeze, or a text of passes."
        ),
    ] = None,
) -> None:
    """List the registered passes, or show what a pipeline will run."""
    if pipeline is None:
        Console().print(pass_table())
    else:
        typer.echo(_pipeline(pipeline).plan())


def _pipeline(text: str) -> Pipeline:
    return Pipeline.default(text) if text in {"float", "ptq", "freeze"} else Pipeline.parse(text)


def pass_table() -> Table:
    """One row for each pass: name and options, what it does, its contract."""
    table = Table(box=None, pad_edge=False)
    for heading in ("pass", "what it does", "requires", "establishes", "semantics"):
        table.add_column(heading, overflow="fold")
    for name, cls in registered_passes().items():
        contract = (_names(cls.requires), _names(cls.establishes), str(cls.semantics))
        table.add_row(name + _options(cls), _summary(cls), *contract)
    return table


def _options(cls: type[Pass]) -> str:
    """The fields of a pass with their defaults: `{limit=6}`."""
    shown = [_option(field) for field in dataclasses.fields(cls)]
    return "{" + ",".join(shown) + "}" if shown else ""


def _option(field: dataclasses.Field[object]) -> str:
    if field.default is dataclasses.MISSING:
        return f"{field.name}=…"
    return f"{field.name}={format_option(field.default)}"


def _summary(cls: type[Pass]) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _names(properties: frozenset[str]) -> str:
    return " ".join(sorted(properties))
