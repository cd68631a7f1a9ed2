"""A progress bar for work that goes through a user's data, batch by batch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any


@contextlib.contextmanager
def progress_bar(
    title: str, wanted: bool, data: Iterable[Any], limit: int | None = None
) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, elsewhere nothing; the function given advances it by one batch.

    Args:
        title: what is going on.
        wanted: whether to show it at all.
        data: what is gone through; its length is looked up if it has one.
        limit: the most batches.
    """
    if not wanted or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    length = len(data) if isinstance(data, Sized) else None
    total = length if limit is None or length is None else min(limit, length)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
