"""What each pass changed in the text of the graph, and nothing else.

    --- before fuse-conv-bn
    +++ after fuse-conv-bn
    @@ -2,5 +2,4 @@
       %conv = conv2d(%x, @conv.weight) {padding=[1,1]} : f32[1,4,8,8]
    -  %norm = BatchNorm2d @norm(%conv) : f32[1,4,8,8]
    -  %relu = relu(%norm) : f32[1,4,8,8]
    +  %relu = relu(%conv) : f32[1,4,8,8]

Names stay as they are where a pass makes a value anew under another one: a value that computes the
same from the same operands is shown under its old name.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import TextIO

from torch.fx import GraphModule

from fxquant.ir.printer import format_graph
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.instruments.base import Instrument

NAME = re.compile(r"%(\w+)")
DEFINED = re.compile(r"^\s*%(\w+) = (.*)$")


class Diff(Instrument):
    """Shows what each pass changed.

    Args:
        folder: where to write `003-fuse-conv-bn.diff`, …; to `stream` if None.
        stream: where to print instead; stderr if None.
    """

    def __init__(self, folder: str | Path | None = None, stream: TextIO | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.texts: list[tuple[str, str]] = []
        self._stream = stream
        self._before = ""

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        self._before = format_graph(graph_module)

    def after_pass(self, item: Pass, result: PassResult) -> None:
        text = text_diff(self._before, format_graph(result.graph_module), item.name)
        if not text:
            return
        self.texts.append((item.name, text))
        if self.folder is None:
            print(text, end="", file=self._stream or sys.stderr)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{len(self.texts):03d}-{item.name}.diff").write_text(text)


def text_diff(before: str, after: str, name: str) -> str:
    """The unified diff of two graphs' texts with one line of context; empty if they are equal."""
    old, new = before.splitlines(), with_old_names(before, after).splitlines()
    lines = difflib.unified_diff(old, new, f"before {name}", f"after {name}", n=1, lineterm="")
    text = "\n".join(lines)
    return text + "\n" if text else ""


def with_old_names(before: str, after: str) -> str:
    """`after` with new names of old values written as they were called before.

    >>> print(with_old_names("%a = relu(%x)\\n%b = exp(%a)", "%a_1 = relu(%x)\\n%b = exp(%a_1)"))
    %a = relu(%x)
    %b = exp(%a)
    """
    known: dict[str, list[str]] = {}
    for each in filter(None, map(DEFINED.match, before.splitlines())):
        known.setdefault(each[2], []).append(each[1])
    kept = {each[1] for each in filter(None, map(DEFINED.match, after.splitlines()))}
    names: dict[str, str] = {}
    lines = []
    for line in after.splitlines():
        renamed = NAME.sub(lambda each: "%" + names.get(each[1], each[1]), line)
        found = DEFINED.match(renamed)
        old = _old_name(found[1], known.get(found[2], []), kept) if found else None
        if found and old is not None:
            names[found[1]] = old
            renamed = renamed.replace(f"%{found[1]} =", f"%{old} =", 1)
        lines.append(renamed)
    return "\n".join(lines)


def _old_name(name: str, candidates: list[str], kept: set[str]) -> str | None:
    """The old name of a value that computes the same, if no other value has that name now."""
    if name in candidates:
        return None
    free = [old for old in candidates if old not in kept]
    if not free:
        return None
    kept.add(free[0])
    return free[0]
