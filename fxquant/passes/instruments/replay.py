"""Running a crash reproducer again: the same passes on the same graph, judged the same way."""

from __future__ import annotations

from pathlib import Path

from torch.fx import GraphModule

from fxquant.passes.instruments.active import instruments
from fxquant.passes.instruments.base import Instrument
from fxquant.passes.instruments.lint import Lint
from fxquant.passes.instruments.reproduce import read_reproducer
from fxquant.passes.instruments.validate import Validate
from fxquant.passes.pipeline import Pipeline


def replay(folder: str | Path) -> GraphModule:
    """Run what a folder holds; the graph after the passes if they no longer fail.

    Raises:
        FormatError: the folder is not a reproducer.
        FxquantError: the failure, again.
    """
    case = read_reproducer(Path(folder))
    pipeline = Pipeline.parse(case.pipeline)
    judges: list[Instrument] = []
    if "Lint" in case.instruments:
        judges.append(Lint())
    if "Validate" in case.instruments:
        judges.append(Validate(case.probe))
    with instruments(*judges):
        return pipeline(case.graph_module)
