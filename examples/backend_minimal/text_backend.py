"""A whole backend in a page: it writes small int8 nets as text, one operator a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule

import fxquant as fq
from fxquant.backends.base import LowerOptions, Segment
from fxquant.quant.constraints import ConstraintTable, Row, asymmetric, carried, row, symmetric

LAYER = Row({"input": asymmetric, "weight": symmetric(0)}, fuses=True)


@dataclass(frozen=True)
class TextOptions:
    """What `lower(…, backend="text", options={…})` takes."""

    title: str = "graph"


class TextBackend(fq.Backend):
    """The quantized graph as text."""

    name: ClassVar[str] = "text"
    suffix: ClassVar[str] = ".txt"
    options_class: ClassVar[type[Any] | None] = TextOptions
    table: ClassVar[ConstraintTable | None] = ConstraintTable(
        "text",
        {
            "conv2d": LAYER,
            "linear": LAYER,
            "relu": row(self=asymmetric),
            "reshape": row(self=asymmetric, output=carried("self")),
        },
        clamps=((0.0, float("inf")),),
    )

    def write(self, graph_module: GraphModule, options: LowerOptions) -> Sequence[Segment]:
        """The file, in pieces."""
        title = self.own_options(options).title
        return [f"# {title}\n".encode(), fq.format_graph(graph_module).encode()]
