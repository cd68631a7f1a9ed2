"""The tables of the reference pages, made from the tables that the code itself reads.

    {{ passes }}    in a page   ->   a Markdown table of all passes, when mkdocs builds the site

mkdocs calls `on_page_markdown` for each page. Links to files that are not on the site, such as
examples, keep only their text there. `python docs/fill_tables.py passes` prints one table.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from fxquant.backends.registry import get_backend, registered_backends
from fxquant.backends.tflite.dialect.refusals import REFUSALS
from fxquant.backends.tflite.dialect.row import Row as FileRow
from fxquant.backends.tflite.dialect.table import ROWS
from fxquant.cli import main as command_line
from fxquant.cli.pass_list import describe
from fxquant.errors import FxquantError
from fxquant.passes.pipelines import PIPELINES
from fxquant.passes.registry import registered_passes
from fxquant.quant.constraints import Row

DOCS = Path(__file__).resolve().parent
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)\)")
PLACE = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page as the site has it, with its tables; mkdocs calls this."""
    folder = (DOCS / page.file.src_uri).parent
    inside = LINK.sub(lambda found: _link(found, folder), markdown)
    return PLACE.sub(lambda found: TABLES[found[1]](), inside)


def _link(found: re.Match[str], folder: Path) -> str:
    outside = "://" not in found[2] and not (folder / found[2]).resolve().is_relative_to(DOCS)
    return found[1] if outside else found[0]


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; `head` has the titles, separated by bars.

    >>> print(table("a | b", [("1", "x|y")]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    """
    width = head.count("|") + 1
    lines = [f"| {head} |", "|" + "---|" * width]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# ---- core operators and backends


def operators() -> str:
    """Core operators × backends: the dtypes that each can compute them in."""
    names = [name for name in registered_backends() if rules_of(name)]
    known = sorted({operator for name in names for operator in rules_of(name)})
    rows = ([f"`{operator}`", *(_support(name, operator) for name in names)] for operator in known)
    return table(" | ".join(["core operator", *names]), rows)


def rules_of(backend: str) -> set[str]:
    """The ATen operators that a backend of ours has rules for, overloads taken together."""
    try:
        found = importlib.import_module(f"fxquant.backends.{backend}.legalize")
    except ImportError:
        return set()
    names = [operator.name() for operator in found.RULES]
    return {name[6:].partition(".")[0] for name in names if name.startswith("aten::")}


def _support(backend: str, operator: str) -> str:
    if operator not in rules_of(backend):
        return ""
    constraints = get_backend(backend).constraints()
    rows = rows_of(constraints.rows.get(operator, ())) if constraints else ()
    dtypes = [dtype for row in rows if not row.reason for dtype in row.dtypes]
    return ", ".join(dict.fromkeys(["float", *dtypes]))


def rows_of(found: Row | tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows of an operator; of several the first that holds counts."""
    return found if isinstance(found, tuple) else (found,)


def tflite_constraints() -> str:
    """What the TFLite backend demands of quantized operators."""
    constraints = get_backend("tflite").constraints()
    assert constraints is not None
    rows = [(name, row) for name, found in constraints.rows.items() for row in rows_of(found)]
    return table(
        "core operator | operands | result | dtypes | takes a clamp in",
        (_constraint(name, row) for name, row in sorted(rows, key=lambda pair: pair[0])),
    )


def _constraint(name: str, row: Row) -> Iterator[str]:
    yield f"`{name}`" + (" (some forms)" if row.when else "")
    if row.reason:
        yield from (f"stays in float: {row.reason}", "", "float", "")
        return
    yield ", ".join(f"{operand}: {role}" for operand, role in row.operands.items())
    yield str(row.output)
    yield ", ".join(row.dtypes)
    yield "yes" if row.fuses else ""


INTEGERS = ("int8", "uint8", "int16")


def integer_dtypes() -> str:
    """Which core operators TFLite computes on activations of which integers."""
    constraints = get_backend("tflite").constraints()
    assert constraints is not None
    rows = ((name, rows_of(found)) for name, found in sorted(constraints.rows.items()))
    lines = ([f"`{name}`", *(_has(found, dtype) for dtype in INTEGERS)] for name, found in rows)
    return table(" | ".join(["core operator", *INTEGERS]), lines)


def _has(found: tuple[Row, ...], dtype: str) -> str:
    able = [row for row in found if not row.reason and dtype in (row.in_steps or row.dtypes)]
    if not able:
        return ""
    how = "in steps" if able[0].in_steps else "yes"
    asked = ", if asked for" if all(row.asked_only for row in able) else ""
    some = "" if len(able) == len(found) else " (some forms)"
    return how + asked + some


# ---- operators of the TFLite file


def tflite_operators() -> str:
    """One line for each operator of the tfl dialect."""
    head = "operator | operands | types of the plain kernels | smallest version | quantization"
    return table(head, (_file_operator(row) for row in sorted(ROWS.values(), key=_builtin)))


def _builtin(row: FileRow) -> str:
    return row.builtin or row.name.upper()


def _file_operator(row: FileRow) -> Iterator[str]:
    yield f"`{_builtin(row)}`"
    yield ", ".join(operand.name for operand in row.operands)
    yield " ".join(sorted(row.dtypes))
    yield ", ".join(["1", *(f"{case}: {version}" for case, version in row.versions.items())])
    scales = [f"{name} has the result's scale" for name in row.same_scale]
    fixed = [f"{kind} result: {scale:g}, {zero}" for kind, (scale, zero) in row.fixed.items()]
    yield "; ".join([*scales, *fixed])


def tflite_refusals() -> str:
    """The forms that must not be written, and the operators that have them."""
    rows = (
        (refusal.reason, _code(_builtin(row) for row in ROWS.values() if name in row.refusals))
        for name, refusal in REFUSALS.items()
    )
    return table("reason | operators", rows)


# ---- passes, pipelines, commands


def passes() -> str:
    """Every registered pass with its options and its contract, as `fxquant passes` prints them."""
    for name in registered_backends():
        with contextlib.suppress(FxquantError):
            get_backend(name)  # which registers the passes of its own
    classes = registered_passes().values()
    ours = [cls for cls in classes if cls.__module__.startswith("fxquant.")]
    rows = (
        [f"`{head}`", what, contract]
        for head, what, contract in (describe(cls).split("\n    ") for cls in ours)
    )
    return table("pass | what it does | contract", rows)


def pipelines() -> str:
    """The passes of the shipped pipelines, in order."""
    rows = ((f"`{name}`", _code(map(str, chosen))) for name, chosen in PIPELINES.items())
    return table("pipeline | passes", rows)


def commands() -> str:
    """A section for each command with its arguments and options."""
    found: Any = typer.main.get_command(command_line.app)
    return "\n\n".join(_command(name, found.commands[name]) for name in sorted(found.commands))


def _command(name: str, command: Any) -> str:
    rows = ([_spelling(each), getattr(each, "help", "") or ""] for each in command.params)
    what = (command.help or "").partition("\n\n")[0]
    return "\n\n".join([f"### fxquant {name}", what, table("option | meaning", rows)])


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return _code([*parameter.opts, *parameter.secondary_opts])


TABLES: Mapping[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        operators,
        tflite_constraints,
        integer_dtypes,
        tflite_operators,
        tflite_refusals,
        passes,
        pipelines,
        commands,
    )
}

if __name__ == "__main__":
    print("\n\n".join(TABLES[name]() for name in sys.argv[1:] or TABLES))
