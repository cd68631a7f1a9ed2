"""fxquant: from a PyTorch model to a small, fast, correct quantized program.

    import fxquant as fq

    fq.compile(model, example_inputs, quantize="int8", calibration=loader, output="model.tflite")

Every stage of the way is a `torch.fx.GraphModule` that runs: print it, run it, compare it with the
stage before.
"""

from __future__ import annotations

from fxquant import qat
from fxquant.api import (
    compile,
    convert,
    lower,
    prepare,
    prepare_qat,
    quantize_dynamic,
    simulate,
    verify,
)
from fxquant.backends.base import Backend, Lowered, LowerOptions
from fxquant.backends.registry import register_backend
from fxquant.backends.source.loading import load_model
from fxquant.bisection import bisect
from fxquant.config_file import write_config
from fxquant.errors import FxquantError
from fxquant.explanation import explain
from fxquant.ir.printer import format_graph
from fxquant.lowered_errors import error_report
from fxquant.mixed.auto import auto_mixed_precision
from fxquant.mixed.budget import Budget, BudgetError
from fxquant.mixed.sensitivity import sensitivity
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.fusion.explanation import explain_match
from fxquant.passes.fusion.match import Match
from fxquant.passes.fusion.registry import register_fusion
from fxquant.passes.fusion.wildcards import (
    any_bool,
    any_float,
    any_int,
    any_literal,
    any_number,
    either,
    optional,
)
from fxquant.passes.instruments import Instrument, explain_node, instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import register_pass
from fxquant.quant.batch_norm import reestimate_batch_norm, restore_batch_norm
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.ranks import reduce_across_ranks
from fxquant.quant.spec import QuantSpec
from fxquant.quant.weight_rounding import refine_rounding
from fxquant.tracing import trace

__version__ = "0.1.0.dev0"

__all__ = [
    "Backend",
    "Budget",
    "BudgetError",
    "FxquantError",
    "Instrument",
    "LowerOptions",
    "Lowered",
    "Match",
    "Pass",
    "PassResult",
    "Pipeline",
    "QuantConfig",
    "QuantSpec",
    "Rule",
    "any_bool",
    "any_float",
    "any_int",
    "any_literal",
    "any_number",
    "auto_mixed_precision",
    "bisect",
    "calibrate",
    "compile",
    "convert",
    "either",
    "error_report",
    "explain",
    "explain_match",
    "explain_node",
    "format_graph",
    "instruments",
    "load_model",
    "lower",
    "optional",
    "prepare",
    "prepare_qat",
    "qat",
    "quantize_dynamic",
    "reduce_across_ranks",
    "reestimate_batch_norm",
    "refine_rounding",
    "register_backend",
    "register_fusion",
    "register_pass",
    "restore_batch_norm",
    "sensitivity",
    "simulate",
    "trace",
    "verify",
    "write_config",
]
