"""The command `fxquant`: its subcommands, and how errors reach the user.

What fxquant raises on purpose is printed in its own shape and ends with exit code 2, as a wrong
option does. Anything else is a bug of ours or of the model's code, and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fxquant import __version__
from fxquant.cli.bisect_command import bisect
from fxquant.cli.config_command import config
from fxquant.cli.convert import convert
from fxquant.cli.inspect_file import inspect_file
from fxquant.cli.pass_list import list_passes
from fxquant.cli.replay_command import replay
from fxquant.cli.report_command import report
from fxquant.cli.source_command import source
from fxquant.errors import FxquantError

app = typer.Typer(
    name="fxquant",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compile a PyTorch model into a quantized program for small devices.",
)
app.command("convert")(convert)
app.command("config")(config)
app.command("inspect")(inspect_file)
app.command("source")(source)
app.command("passes")(list_passes)
app.command("bisect")(bisect)
app.command("replay")(replay)
app.command("report")(report)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fxquant {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Compile a PyTorch model into a quantized program for small devices."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with 0, or with 2 after a user's mistake."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="fxquant")
    except FxquantError as error:
        name = typer.style(type(error).__name__, fg=typer.colors.RED, bold=True)
        typer.echo(f"{name}: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
