"""The error report as one HTML file that opens anywhere: no script, no server, no request.

Each layer is a row: a bar for its own error (the longer, the worse), one for the error so far, the
range of its values against the range of its grid, and what it computes in. Below stands what is
not quantized, and why.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from fxquant.errors import OutputError
from fxquant.quant.error_report.layer_error import Grid, LayerError
from fxquant.quant.error_report.report import ErrorReport, decibels, percent
from fxquant.quant.error_report.sums import ErrorSums

BEST_DB = 60.0
"""A layer this good has no bar."""

WORST_DB = 0.0
"""A layer this bad has a full one."""

STYLE = """
:root { color-scheme: light dark; --bar: #c2571a; --sum: #2f6f9f; --grid: #8886; }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #8884; }
th { position: sticky; top: 0; background: Canvas; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { display: block; height: .7rem; background: #8882; width: 9rem; }
.bar i { display: block; height: 100%; background: var(--bar); }
.bar i.sum { background: var(--sum); }
.range { position: relative; display: block; height: .7rem; width: 9rem; background: #8882; }
.range i { position: absolute; height: 100%; background: var(--grid); }
.range b { position: absolute; height: 100%; border: solid var(--bar); border-width: 0 2px; }
code { font-size: .93em; }
tr.float { color: GrayText; }
small { color: GrayText; }
"""


def save_html(report: ErrorReport, path: str | Path, title: str = "Error of each layer") -> Path:
    """Write the report as a page of its own.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    try:
        path.write_text(page(report, title), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def page(report: ErrorReport, title: str = "Error of each layer") -> str:
    """The whole page as text."""
    several = "s" if report.samples != 1 else ""
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Quantized{_stage(report)} against float on {report.samples} sample{several}.</p>",
        _outputs(report),
        _first(report),
        "<h2>Layers</h2>",
        _layers(report),
        _floats(report),
        _unpaired(report),
    ]
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return (
        f"<!doctype html>\n<html lang=en>{head}\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _stage(report: ErrorReport) -> str:
    return f" and lowered to {escape(report.stage)}" if report.stage else ""


def _unpaired(report: ErrorReport) -> str:
    """What only one of two graphs has."""
    if not report.unpaired:
        return ""
    rows = [[_code(n), escape(operator), escape(which)] for n, operator, which in report.unpaired]
    return "<h2>Not compared</h2>" + _table(["node", "operator", "missing in the graph"], rows)


def _outputs(report: ErrorReport) -> str:
    rows = [
        [_code(name), decibels(sums.sqnr_db), f"{sums.cosine:.5f}", f"{sums.max_abs:.3g}"]
        for name, sums in report.outputs.items()
    ]
    return "<h2>Outputs</h2>" + _table(["output", "SQNR", "cosine", "largest error"], rows)


def _first(report: ErrorReport) -> str:
    """The layers to look at first."""
    rows = [
        [_layer(row), f"{row.share:.0%}", escape(row.cause), escape(row.advice)]
        for row in report.worst()
    ]
    headings = ["layer", "share of all layers' own noise", "mostly", "try"]
    return "<h2>Look here first</h2>" + _table(headings, rows)


def _layers(report: ErrorReport) -> str:
    headings = ["layer", "operator", "precision", "alone", "", "so far", "", "cosine"]
    headings += ["largest error", "values and grid", "clipped", "cause", "from"]
    rows = [_cells(row) for row in report]
    classes = ["" if row.quantized else "float" for row in report]
    return _table(headings, rows, classes)


def _cells(row: LayerError) -> list[str]:
    cause = row.cause if row.quantized else "in float"
    return [
        _layer(row),
        escape(row.operator),
        escape(row.precision),
        _bar(row.alone, ""),
        decibels(row.alone.sqnr_db),
        _bar(row.cumulative, "sum"),
        decibels(row.cumulative.sqnr_db),
        f"{row.cumulative.cosine:.5f}",
        f"{row.cumulative.max_abs:.3g}",
        _range(row),
        "" if row.grid is None else percent(row.clipped_share),
        escape(cause),
        f"<small>{escape(row.source)}</small>",
    ]


def _layer(row: LayerError) -> str:
    where = f"<br><small>{escape(row.module)}</small>" if row.module else ""
    return _code(row.node) + where


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _bar(sums: ErrorSums, kind: str) -> str:
    """A bar that is longer for a larger error; the scale is in decibels."""
    length = badness(sums.sqnr_db)
    text = f"SQNR {decibels(sums.sqnr_db)}, cosine {sums.cosine:.5f}"
    mark = f' class="{kind}"' if kind else ""
    return f'<span class="bar" title="{text}"><i{mark} style="width:{length:.0%}"></i></span>'


def badness(sqnr_db: float) -> float:
    """How long a bar is, 0 to 1.

    >>> badness(30.0), badness(float("inf")), badness(-5.0)
    (0.5, 0.0, 1.0)
    """
    if math.isinf(sqnr_db):
        return 0.0 if sqnr_db > 0 else 1.0
    return min(max((BEST_DB - sqnr_db) / (BEST_DB - WORST_DB), 0.0), 1.0)


def _range(row: LayerError) -> str:
    """The range of the float values as a block, and the ends of the grid as lines."""
    if row.least > row.most:
        return ""
    grid = row.grid or Grid(row.least, row.most, 0.0)
    low, high = min(row.least, grid.low), max(row.most, grid.high)
    width = (high - low) or 1.0
    text = f"values {row.least:.4g} to {row.most:.4g}"
    block = _span("i", row.least, row.most, low, width)
    lines = ""
    if row.grid is not None:
        text += f", grid {grid.low:.4g} to {grid.high:.4g} in steps of {grid.step:.3g}"
        lines = _span("b", grid.low, grid.high, low, width)
    return f'<span class="range" title="{text}">{block}{lines}</span>'


def _span(tag: str, start: float, stop: float, low: float, width: float) -> str:
    left, part = (start - low) / width, (stop - start) / width
    return f'<{tag} style="left:{left:.1%};width:{part:.1%}"></{tag}>'


def _floats(report: ErrorReport) -> str:
    rows = [
        [_layer(row), escape(row.operator), escape(row.reason), escape(row.source)]
        for row in report.stayed_float
    ]
    if not rows:
        return "<h2>Not quantized</h2><p>Nothing: every layer is quantized.</p>"
    headings = ["layer", "operator", "why", "from"]
    return "<h2>Not quantized</h2>" + _table(headings, rows)


def _table(headings: list[str], rows: list[list[str]], classes: list[str] | None = None) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = [
        f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row, kind in zip(rows, classes or [""] * len(rows), strict=True)
    ]
    return (
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table>"
    )
