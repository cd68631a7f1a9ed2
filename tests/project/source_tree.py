"""The source files of the project, for the tests that look at them as files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fxquant"


class Import(NamedTuple):
    """One import statement: the file that has it, its line, the absolute name it asks for."""

    file: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def python_files(*folders: str) -> list[Path]:
    """The Python files of some folders, without what tools leave behind."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(file: Path) -> Iterator[Import]:
    """Everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(), filename=str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield Import(file, node.lineno, f"{node.module}.{alias.name}")


def is_inside(name: str, package: str) -> bool:
    """Whether a dotted name is a package or something in it."""
    return name == package or name.startswith(package + ".")
