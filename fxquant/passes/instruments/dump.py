"""Every stage in a folder: numbered text, and Python that runs by itself.

000-input.txt          the graph as `format_graph` prints it
000-input.py           the graph as a module; `python 000-input.py` runs it
000-input.safetensors  the weights that no earlier stage wrote
001-functionalize.txt  …
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch.fx import GraphModule

from fxquant.ir.printer import format_graph
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.instruments.base import Instrument
from fxquant.passes.instruments.program import Writer

if TYPE_CHECKING:
    from fxquant.passes.pipeline import Pipeline


class Dump(Instrument):
    """Writes each stage as numbered text (`003-fuse-conv-bn.txt`) and as Python (`….py`).

    Args:
        folder: where to; it is made.
        python: write the Python files and the weights too.
    """

    def __init__(self, folder: str | Path, python: bool = True) -> None:
        self.folder = Path(folder)
        self.python = python
        self._number = 0
        self._writer = Writer(self.folder)

    def before_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        self._write("input", graph_module)

    def after_pass(self, item: Pass, result: PassResult) -> None:
        self._write(item.name, result.graph_module)

    def pass_failed(self, item: Pass, graph_module: GraphModule, error: Exception) -> None:
        self._write_text(f"{item.name}-failed", graph_module)
        self._number += 1

    def _write(self, name: str, graph_module: GraphModule) -> None:
        stem = self._write_text(name, graph_module)
        if self.python:
            self._writer.write(stem, graph_module, f"The graph after {name}.")
        self._number += 1

    def _write_text(self, name: str, graph_module: GraphModule) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"{self._number:03d}-{name}"
        (self.folder / f"{stem}.txt").write_text(format_graph(graph_module))
        return stem
