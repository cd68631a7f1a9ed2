"""Every Python block of the documents runs, and prints what the page says that it prints.

The blocks of a page run in order, in one namespace, in an empty folder. A block `output` after a
Python block is what it prints, with `...` for what may differ; `--update-golden` rewrites it
where it is wrong. A block runs nowhere if the line before it is `<!-- skip: why -->`.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import multiprocessing
import os
import re
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.project.source_tree import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"(?:^<!-- skip:(?P<skip>[^>]*)-->\n+)?^```(?P<kind>python|output)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SAME = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class Block(NamedTuple):
    """One fenced block of a page: its kind, its text, where the text stands in the page."""

    kind: str
    text: str
    start: int
    line: int
    skip: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            found["kind"],
            found["text"],
            found.start("text"),
            text.count("\n", 0, found.start("text")) + 1,
            found["skip"],
        )
        for found in FENCE.finditer(text)
    ]


def run(page: Path) -> Iterator[tuple[Block, str, str | None]]:
    """Run a page; gives each block, what it printed, and what the page says that it prints."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = [block for block in blocks(page) if block.skip is None]
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.kind == "output":
            continue
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        is_output = after is not None and after.kind == "output"
        yield block, printed.getvalue(), after.text if is_output and after else None


def agrees(said: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(said, printed, SAME)


def differences(page: Path) -> str:
    """Where a page says something else than its blocks print; empty when nowhere."""
    return "\n".join(
        f"{page.relative_to(ROOT)}:{block.line} prints\n{printed}\nand the page says\n{said}"
        for block, printed, said in run(page)
        if said is not None and not agrees(said, printed)
    )


def updated(page: Path) -> str:
    """The text of a page with the outputs that its blocks have now."""
    text = page.read_text()
    for block, printed, said in reversed(list(run(page))):
        if said is not None and not agrees(said, printed):
            place = text.index("```output\n", block.start) + len("```output\n")
            text = text[:place] + printed.strip("\n") + "\n" + text[place + len(said) :]
    return text


def with_code(pages: list[Path]) -> list[Path]:
    return [page for page in pages if blocks(page)]


def work(page: Path, folder: Path, update: bool, answers: Connection) -> None:
    """Check or rewrite a page in a process of its own; the answer is what is wrong."""
    os.chdir(folder)
    os.environ["COLUMNS"] = "100"
    warnings.simplefilter("error")
    try:
        if update:
            page.write_text(updated(page))
        answers.send("" if update else differences(page))
    except BaseException:
        answers.send(traceback.format_exc())


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that begin with fxquant imported; pages register passes, fusions and backends."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fxquant.cli.main", "fxquant.backends.tflite.backend"])
    return context


@pytest.mark.parametrize("page", with_code(PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run_and_print_what_the_page_says(
    page: Path, tmp_path: Path, processes: ForkServerContext, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("ai_edge_litert", reason="the pages run their files in LiteRT")
    update = bool(request.config.getoption("--update-golden"))
    reader, writer = processes.Pipe(duplex=False)
    process = processes.Process(target=work, args=(page, tmp_path, update, writer))
    process.start()
    writer.close()
    problem = reader.recv()
    process.join()
    assert not problem, problem


def test_a_block_is_skipped_only_with_a_reason() -> None:
    found = [(page, block) for page in PAGES for block in blocks(page) if block.skip is not None]
    assert [f"{page}:{block.line}" for page, block in found if not (block.skip or "").strip()] == []


def test_no_block_hides_from_this_test() -> None:
    fences = {
        page.name: re.findall(r"^\s*(?:```|~~~)\s*\{?\.?py", page.read_text(), re.MULTILINE)
        for page in PAGES
    }
    counted = {page.name: [b for b in blocks(page) if b.kind == "python"] for page in PAGES}
    assert {name: len(found) for name, found in fences.items()} == {
        name: len(found) for name, found in counted.items()
    }
