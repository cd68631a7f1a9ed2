"""Writes the file list of docs/architecture.md from the first line of every module's docstring.

    python docs/write_architecture.py            rewrite the list
    python docs/write_architecture.py --check    say whether it is up to date

The text above the marker is written by hand and left alone.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
MARKER = "<!-- the list below is written by docs/write_architecture.py -->"
FOLDERS = ("fxquant", "examples", "benchmarks")


def first_line(file: Path) -> str:
    """What a module is for: the first line of its docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return docstring.partition("\n")[0].rstrip(".")


def folders(root: Path) -> Iterator[Path]:
    """A folder and all below it that hold modules, a folder before its subfolders."""
    if any(root.glob("*.py")):
        yield root
    for child in sorted(path for path in root.iterdir() if path.is_dir()):
        yield from folders(child)


def listing() -> str:
    """The list as Markdown: a section for each folder, a line for each file."""
    lines: list[str] = []
    for folder in (found for name in FOLDERS for found in folders(ROOT / name)):
        lines += ["", f"### {folder.relative_to(ROOT)}/", ""]
        lines += [f"- `{file.name}`: {first_line(file)}" for file in _ordered(folder)]
    return "\n".join(lines) + "\n"


def _ordered(folder: Path) -> list[Path]:
    """The files of a folder with something to say, `__init__.py` first."""
    files = [file for file in folder.glob("*.py") if first_line(file) or file.name != "__init__.py"]
    return sorted(files, key=lambda file: (file.name != "__init__.py", file.name))


def page() -> str:
    """The whole page as it should be."""
    return PAGE.read_text().partition(MARKER)[0] + MARKER + "\n" + listing()


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(page() != PAGE.read_text())
    PAGE.write_text(page())
