"""Why one node cannot be written in the core dialect; the interpreter collects these."""

from __future__ import annotations


class Unsupported(Exception):
    """One reason, with advice; never leaves the pass, which lists all reasons in one error."""

    def __init__(self, what: str, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
