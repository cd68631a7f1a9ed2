"""What every test can ask for: golden texts that `pytest --update-golden` rewrites."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest


class Golden(Protocol):
    """Compares a text with the file `golden/<name>.txt` beside the test."""

    def __call__(self, name: str, text: str) -> None: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden("name", text)`: the text must equal `golden/name.txt` beside the test's file."""
    folder = Path(request.path).parent / "golden"
    update = bool(request.config.getoption("--update-golden"))

    def compare(name: str, text: str) -> None:
        path = folder / f"{name}.txt"
        if update:
            folder.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest --update-golden and read the diff"
        assert text == path.read_text()

    return compare
