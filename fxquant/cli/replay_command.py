"""`fxquant replay folder`: run again what `FXQUANT_REPRODUCE` wrote when a pass failed.

The failure is shown as it was, and the command ends with 2; once it is mended, with 0. Loading the
folder runs code in it: replay only what you trust.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from fxquant.backends.registry import get_backend, registered_backends
from fxquant.errors import RegistrationError
from fxquant.passes.instruments.replay import replay as run_again


def replay(
    folder: Annotated[Path, typer.Argument(help="What FXQUANT_REPRODUCE=folder wrote.")],
) -> None:
    """Run a crash reproducer again."""
    for name in registered_backends():
        with contextlib.suppress(RegistrationError):
            get_backend(name)  # which registers the passes of its own
    run_again(folder)
    typer.echo(f"the passes of {folder} run: the failure is gone")
