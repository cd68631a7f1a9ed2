"""How long does it take to look for all shipped patterns in a graph of 2,000 operators?

    python -m benchmarks.fusion [--operators 2000] [--json fusion.json]

Three graphs: convolutions with ReLU, where nothing is found; transformer blocks written out by
hand, where everything is (about every third operator); and products and sums in a long row, where
patterns nearly match everywhere. Tracing the patterns happens once in a process and stands apart,
as does the pass itself, which also rewrites what is found. The aim is 0.3 s for the search.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.fx import GraphModule

import fxquant as fq
from fxquant.passes.fuse_patterns import FusePatterns
from fxquant.passes.fusion.registry import registered_fusions
from fxquant.passes.fusion.search import Search

AIM = 0.3


@dataclass(frozen=True)
class Row:
    """The figures of one graph, in CPU seconds.

    Attributes:
        name: of the graph.
        operators: in it.
        tracing: of the patterns that had not been traced before.
        search: one walk for all shipped patterns, nothing rewritten.
        found: matches of the walk.
        rewriting: the pass as a pipeline runs it.
    """

    name: str
    operators: int
    tracing: float
    search: float
    found: int
    rewriting: float


def convolutions(x: Tensor, operators: int) -> Tensor:
    """conv2d, relu, and so on."""
    weight = torch.ones(4, 4, 1, 1)
    for _ in range(operators // 2):
        x = torch.relu(torch.conv2d(x, weight))
    return x


def transformer(x: Tensor, operators: int) -> Tensor:
    """Layer norms, attention and gelu by hand: 24 operators a block."""
    for _ in range(operators // 24):
        x = x + attention(layer_norm(x))
        x = x + gelu(layer_norm(x))
    return x


def layer_norm(x: Tensor) -> Tensor:
    """A layer norm without weights."""
    rest = x - x.mean(-1, keepdim=True)
    return rest / torch.sqrt(rest.pow(2).mean(-1, keepdim=True) + 1e-5)


def attention(x: Tensor) -> Tensor:
    """Attention of a value to itself."""
    return torch.softmax(x @ x.transpose(-2, -1) / math.sqrt(8), -1) @ x


def gelu(x: Tensor) -> Tensor:
    """The exact gelu."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def arithmetic(x: Tensor, operators: int) -> Tensor:
    """Products with sigmoids, sums and clamps that are nearly activations."""
    for _ in range(operators // 5):
        x = (x * 0.5) * torch.sigmoid(x + 1) + torch.clamp(x, -1, 1)
    return x


GRAPHS: dict[str, tuple[Callable[[Tensor, int], Tensor], tuple[int, ...]]] = {
    "convolutions": (convolutions, (1, 4, 4, 4)),
    "transformer": (transformer, (2, 8, 8)),
    "arithmetic": (arithmetic, (2, 8, 8)),
}


def core(name: str, operators: int) -> GraphModule:
    """The core graph of a benchmark."""
    function, shape = GRAPHS[name]
    traced = fq.trace(lambda x: function(x, operators), (torch.zeros(shape),))
    return fq.Pipeline.parse("functionalize,common-subexpressions")(traced)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, operators: int, rounds: int = 3) -> Row:
    """The figures of one graph."""
    graph_module = core(name, operators)
    fusions = list(registered_fusions().values())
    tracing = seconds(lambda: Search(fusions, graph_module))

    def walk() -> int:
        order = {node: float(number) for number, node in enumerate(graph_module.graph.nodes)}
        return sum(1 for _ in Search(fusions, graph_module).walk(order))

    found = walk()  # also traces the replacements for the shapes of this graph
    search = min(seconds(walk) for _ in range(rounds))
    names = tuple(fusion.name for fusion in fusions)
    rewriting = seconds(lambda: fq.Pipeline((FusePatterns(names),))(graph_module))
    count = sum(node.op == "call_function" for node in graph_module.graph.nodes)
    return Row(name, count, tracing, search, found, rewriting)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print a table, and return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operators", type=int, default=2000, help="size of the graphs")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    options = parser.parse_args(arguments)
    rows = [measure(name, options.operators) for name in GRAPHS]
    table = Table(title=f"all shipped patterns, CPU seconds (aim: search below {AIM} s)")
    for column in ("graph", "operators", "tracing", "search", "found", "the pass"):
        table.add_column(column, justify="left" if column == "graph" else "right")
    for row in rows:
        figures = (f"{row.tracing:.3f}", f"{row.search:.3f}", str(row.found))
        table.add_row(row.name, str(row.operators), *figures, f"{row.rewriting:.3f}")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    return rows


if __name__ == "__main__":
    main()
