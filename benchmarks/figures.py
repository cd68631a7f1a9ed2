"""The figures of a benchmark as JSON, beside the table that it prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_json(path: Path | None, rows: Sequence[Any]) -> None:
    """Write rows, which are dataclasses, where a path is given."""
    if path is not None:
        path.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
