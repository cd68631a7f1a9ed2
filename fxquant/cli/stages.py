"""The stages of a command on the terminal: which one runs, and how long each took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console


class Stages:
    """Prints stages to stderr as they end, so that stdout holds the result alone."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, *, own_progress: bool = False) -> Iterator[None]:
        """A stage by its name; `own_progress` where it shows a progress bar of its own."""
        spinner = contextlib.nullcontext() if own_progress else self.console.status(f"{name} …")
        start = time.perf_counter()
        with spinner:
            yield
        self.seconds[name] = time.perf_counter() - start
        self.console.print(f"{name:<12} {self.seconds[name]:6.2f} s")
