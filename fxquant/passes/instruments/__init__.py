"""What watches passes run: time, dumps, differences, lint, validation. Passes know nothing of them.

    with instruments(Timing() as timing, Lint()):
        pipeline(graph_module)
    print(timing.table())

They are off by default, and one keyword (`instruments=["lint"]` of the functions of `fxquant`) or
one environment variable away: `FXQUANT_TIME`, `FXQUANT_LINT`, `FXQUANT_DUMP`, `FXQUANT_DIFF`,
`FXQUANT_VALIDATE`, `FXQUANT_REPRODUCE`, each 1 or, where something is written, a folder.
"""

from __future__ import annotations

from fxquant.passes.instruments.active import active_instruments, instrument, instruments, watched
from fxquant.passes.instruments.base import Instrument
from fxquant.passes.instruments.diff import Diff
from fxquant.passes.instruments.dump import Dump
from fxquant.passes.instruments.lint import Lint
from fxquant.passes.instruments.provenance import explain_node
from fxquant.passes.instruments.reproduce import Reproduce
from fxquant.passes.instruments.timing import Timing
from fxquant.passes.instruments.validate import Validate

__all__ = [
    "Diff",
    "Dump",
    "Instrument",
    "Lint",
    "Reproduce",
    "Timing",
    "Validate",
    "active_instruments",
    "explain_node",
    "instrument",
    "instruments",
    "watched",
]
