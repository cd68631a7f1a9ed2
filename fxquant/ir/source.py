"""Where in the user's model a node comes from: file, line, code and module path."""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from pathlib import Path

from torch.fx import Node


@dataclass(frozen=True)
class SourceLocation:
    """A line of the user's code; the text of the line is looked up only when printed.

    Attributes:
        file, line: where it stands.
        module: path of the module whose code runs.
        call: number of that module's call in `ir.origin.Origin.calls`.
        layer: path of the `torch.nn` layer that is called there, if one is.
    """

    file: str
    line: int
    module: str = ""
    call: int | None = None
    layer: str = ""

    @property
    def path(self) -> str:
        """The module path of the operator: the layer's, or that of the module around it."""
        return self.layer or self.module

    @property
    def code(self) -> str:
        """The source text of the line, stripped; empty where the file is not to be had."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        module = f"  (in {self.module})" if self.module else ""
        return f"{Path(self.file).name}:{self.line}  {self.code}{module}".rstrip()


def source_of(node: Node) -> SourceLocation | None:
    """The user's line that made a node, where it is known."""
    source = node.meta.get("source")
    return source if isinstance(source, SourceLocation) else None


def source_text(node: Node) -> str | None:
    """The user's line as text for an error message."""
    source = source_of(node)
    return None if source is None else str(source)
