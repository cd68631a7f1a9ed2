"""The documents are complete: every file has its line, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.write_architecture import PAGE, first_line, page
from tests.project.source_tree import ROOT, python_files

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*.md"),
        *(ROOT / "changelog.d").glob("*.md"),
    ]
)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def test_architecture_page_has_one_line_per_file() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(file) for file in python_files("fxquant", "tests") if not first_line(file)]
    assert silent == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    files = python_files("fxquant", "tests", "benchmarks", "examples")
    assert [str(file) for file in files if file.stem.strip("_") in VAGUE] == []


def test_test_files_have_unique_names() -> None:
    names = [file.name for file in python_files("tests") if file.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_commands_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(commands)
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands)
