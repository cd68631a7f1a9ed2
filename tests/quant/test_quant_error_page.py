"""The error report as a page: whole, alone in its file, and nothing in it is markup by accident."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from fxquant.errors import OutputError
from fxquant.quant.calibration import calibrate
from fxquant.quant.error_report.html import page
from fxquant.quant.error_report.measure import error_report
from fxquant.quant.error_report.report import ErrorReport
from tests.passes.quantized_graphs import prepared
from tests.quant.test_quant_error_report import chain, images

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Notes text, and that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def report() -> ErrorReport:
    return error_report(calibrate(prepared(chain()), images(4)), images(3))


def test_it_holds_every_layer_and_asks_for_nothing(report: ErrorReport, tmp_path: Path) -> None:
    path = report.save_html(tmp_path / "report.html", title="a <net>")
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert "a <net>" in reader.texts
    for row in report:
        assert row.node in reader.texts
    assert "EXP is too steep for 8 bits" in reader.texts
    assert not {"src", "href", "onload"} & {name for name, _ in reader.attributes}
    assert not any(word in text for word in ("http:", "https:", "<script", "@import", "url("))


def test_bars_are_longer_for_larger_errors(report: ErrorReport) -> None:
    text = page(report)
    row = report["second"]
    assert f"width:{(60 - row.alone.sqnr_db) / 60:.0%}" in text
    assert f"grid {row.grid.low:.4g} to" in text if row.grid else False


def test_a_file_that_cannot_be_written(report: ErrorReport, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        report.save_html(tmp_path / "missing" / "report.html")
