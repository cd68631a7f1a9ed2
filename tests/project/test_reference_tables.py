"""The tables of the reference pages are complete, and every page asks only for tables there are."""

from __future__ import annotations

import re

import pytest

import fxquant
from docs.fill_tables import DOCS, PLACE, TABLES, rules_of
from fxquant.backends.tflite.dialect.table import ROWS
from fxquant.passes.registry import registered_passes

PAGES = sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_stands_in_a_page(name: str) -> None:
    assert any(name in PLACE.findall(page.read_text()) for page in PAGES)


def test_pages_ask_for_tables_that_exist() -> None:
    wanted = {name for page in PAGES for name in PLACE.findall(page.read_text())}
    assert wanted <= set(TABLES)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "commands"])
def test_rows_have_as_many_cells_as_the_head(name: str) -> None:
    lines = TABLES[name]().splitlines()
    cells = [line.replace("\\|", "").count("|") for line in lines]
    assert len(lines) > 3 and set(cells) == {cells[0]}


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "api.md").read_text()
    documented = re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
    short = {name.rpartition(".")[2] for name in documented}
    known = {name for name in dir(fxquant.errors) if name[0].isupper()}
    assert sorted(set(fxquant.__all__) - short - known) == []


def test_every_pass_has_a_line() -> None:
    text = TABLES["passes"]()
    ours = [name for name, cls in registered_passes().items() if cls.__module__[:7] == "fxquant"]
    assert [name for name in ours if f"| `{name}" not in text] == []


def test_every_operator_of_a_backend_has_a_line() -> None:
    text = TABLES["operators"]()
    assert rules_of("tflite") and rules_of("onnx")
    known = rules_of("tflite") | rules_of("onnx")
    assert [name for name in known if f"| `{name}` |" not in text] == []


def test_every_operator_of_the_file_has_a_line() -> None:
    text = TABLES["tflite_operators"]()
    builtins = [row.builtin or row.name.upper() for row in ROWS.values()]
    assert [name for name in builtins if f"| `{name}` |" not in text] == []


def test_every_command_has_a_section() -> None:
    text = TABLES["commands"]()
    assert all(f"### fxquant {name}" in text for name in ("convert", "inspect", "passes"))
