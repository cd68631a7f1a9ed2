"""The matrix of methods: a cell has figures, and a method that fails has a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import digit_nets, methods
from fxquant.errors import InputError

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(digit_nets.EPOCHS, "lstm", 5)
    monkeypatch.setattr(methods, "CALIBRATION", 16)
    monkeypatch.setattr(methods, "EVALUATED", 40)


def test_the_table_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- methods: begin -->\nold\n<!-- methods: end -->\nafter\n")
    rows = methods.main(["--nets", "lstm", "--methods", "float32;int8", "--write", str(page)])
    assert [row.failure for row in rows] == ["", ""]
    assert rows[0].sqnr_db > 100 and rows[1].sqnr_db > 20
    assert rows[1].same_values == 1.0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| lstm |") == 2


def test_a_method_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(net: object) -> None:
        raise InputError("out of luck", fix="none")

    monkeypatch.setitem(methods.METHODS, "float32", fail)
    (row,) = methods.main(["--nets", "lstm", "--methods", "float32"])
    assert "out of luck" in row.failure and "out of luck" in methods.markdown([row])
