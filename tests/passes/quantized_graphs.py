"""The quantization passes in a row, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.fx import GraphModule

from fxquant.passes.annotate import Annotate
from fxquant.passes.freeze import Freeze
from fxquant.passes.insert_observers import InsertObservers
from fxquant.passes.insert_stubs import InsertStubs
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.calibration import calibrate


def annotated(graph_module: GraphModule) -> GraphModule:
    """After annotate."""
    return Pipeline((Annotate(),))(graph_module)


def stubbed(graph_module: GraphModule) -> GraphModule:
    """After annotate and insert-stubs."""
    return Pipeline((Annotate(), InsertStubs()))(graph_module)


def prepared(graph_module: GraphModule) -> GraphModule:
    """After annotate, insert-stubs and insert-observers."""
    return Pipeline((Annotate(), InsertStubs(), InsertObservers()))(graph_module)


def frozen(graph_module: GraphModule, data: Iterable[Any]) -> GraphModule:
    """After all of them, calibrated on the data."""
    return Pipeline((Freeze(),))(calibrate(prepared(graph_module), data))
