"""Translation validation under its short name; see `instruments/validate.py`."""

from __future__ import annotations

from fxquant.passes.instruments.deviation import Deviation, deviation
from fxquant.passes.instruments.probe import probe_inputs, run_flat, run_nodes
from fxquant.passes.instruments.validate import Validate

__all__ = ["Deviation", "Validate", "deviation", "probe_inputs", "run_flat", "run_nodes"]
