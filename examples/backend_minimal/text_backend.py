"""A whole backend in a page: it writes small int8 nets as text, one operator a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule

import fxquant as fq
from fxquant.backends.base import LowerOptions, Segment
from fxquant.errors import Problem, UnsupportedOp
from fxquant.ir.aten import packet_name
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.quant.constraints import ConstraintTable, Row, asymmetric, carried, row, symmetric

LAYER = Row({"input": asymmetric, "weight": symmetric(0)}, fuses=True)
TABLE = ConstraintTable(
    "text",
    {
        "conv2d": LAYER,
        "linear": LAYER,
        "relu": row(self=asymmetric),
        "mean": row(self=asymmetric),
        "reshape": row(self=asymmetric, output=carried("self")),
    },
    clamps=((0.0, float("inf")),),
)


@fq.register_pass
@dataclass(frozen=True)
class CheckText(fq.Pass):
    """%y = erf(%x)  ->  an error that names the line; everything in the table stays as it is."""

    name: ClassVar[str] = "check-text"
    requires: ClassVar[frozenset[str]] = frozenset({"functional"})

    def run(self, graph_module: GraphModule) -> fq.PassResult:
        problems = [
            Problem(f"text has no {called}", format_node(node, graph_module), source_text(node))
            for node in graph_module.graph.nodes
            if node.op == "call_function"
            and (called := packet_name(node.target)) not in TABLE.rows
            and not called.startswith("fake_quantize")
        ]
        if problems:
            raise UnsupportedOp("text cannot express the graph", problems=problems)
        return fq.PassResult(graph_module, False)


@dataclass(frozen=True)
class TextOptions:
    """What `lower(…, backend="text", options={…})` takes."""

    title: str = "graph"


class TextBackend(fq.Backend):
    """The quantized graph as text."""

    name: ClassVar[str] = "text"
    suffix: ClassVar[str] = ".txt"
    options_class: ClassVar[type[Any] | None] = TextOptions

    def constraints(self) -> ConstraintTable:
        """Which operators compute in integers, and on which grids."""
        return TABLE

    def pipeline(self, options: LowerOptions) -> fq.Pipeline:
        """The passes from the core dialect to what `write` takes."""
        self.own_options(options)
        self.refuse_borders(options)
        return fq.Pipeline((CheckText(),), title="text")

    def write(self, graph_module: GraphModule, options: LowerOptions) -> Sequence[Segment]:
        """The file, in pieces."""
        title = self.own_options(options).title
        return [f"# {title}\n".encode(), fq.format_graph(graph_module).encode()]
