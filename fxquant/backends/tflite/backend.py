"""The TFLite backend: constraints, pipeline, writer and verifier in one place."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, get_args

from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.backends.base import Backend, Lowered, LowerOptions, Segment
from fxquant.backends.tflite.constraints import TABLE
from fxquant.backends.tflite.dialect import QTensor
from fxquant.backends.tflite.dialect.table import ROWS
from fxquant.backends.tflite.integer_promise import check_promise
from fxquant.backends.tflite.interpreter import Kernels
from fxquant.backends.tflite.kernels.quantization import dequantize_real, quantize_real
from fxquant.backends.tflite.layout.assign_layout import AssignLayout
from fxquant.backends.tflite.legalize.legalize_tflite import LegalizeTflite
from fxquant.backends.tflite.lower_options import FUSED, TfliteOptions
from fxquant.backends.tflite.passes.drop_rounding import DropRounding
from fxquant.backends.tflite.passes.fold_tfl_constants import FoldTflConstants
from fxquant.backends.tflite.passes.fuse_activation import FuseActivation
from fxquant.backends.tflite.passes.merge_pads import MergePads
from fxquant.backends.tflite.sample_inputs import fitted_inputs
from fxquant.backends.tflite.serialize import contents_of, serialize
from fxquant.backends.tflite.simulation import Simulation
from fxquant.backends.tflite.verify import verify
from fxquant.backends.tflite.verify_report import VerifyReport
from fxquant.errors import InputError
from fxquant.passes.base import Pass
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.roll_recurrent import RollRecurrent
from fxquant.passes.unroll_recurrent import UnrollRecurrent
from fxquant.quant.constraints import ConstraintTable


class TfliteBackend(Backend):
    """Flatbuffers for LiteRT."""

    name: ClassVar[str] = "tflite"
    suffix: ClassVar[str] = ".tflite"
    options_class: ClassVar[type[Any] | None] = TfliteOptions

    def constraints(self) -> ConstraintTable:
        """What LiteRT's int8 kernels take."""
        return TABLE

    def pipeline(self, options: LowerOptions) -> Pipeline:
        """legalize, then few exact rewrites around the layout."""
        chosen = self.own_options(options)
        assert isinstance(chosen, TfliteOptions)
        before: tuple[Pass, ...] = () if chosen.round_activations else (DropRounding(),)
        legalize = LegalizeTflite(
            io_dtype=options.io_dtype,
            integer_only=options.require is not None,
            bfloat16_storage=chosen.bfloat16_storage,
        )
        return Pipeline(
            (
                RollRecurrent(),
                UnrollRecurrent(keep=FUSED[chosen.recurrent]),
                *before,
                legalize,
                FoldTflConstants(),
                AssignLayout(io_layout=options.io_layout),
                FoldTflConstants(),
                FuseActivation(),
                MergePads(),
            ),
            title="tflite",
        )

    def write(self, graph_module: GraphModule, options: LowerOptions) -> Sequence[Segment]:
        """The head of the file, then views of the weights."""
        return serialize(graph_module)

    def count_operators(self, graph_module: GraphModule) -> dict[str, int]:
        """The file's operators by their builtin names."""
        operators = contents_of(graph_module).model.main.operators
        return dict(Counter(operator.name for operator in operators))

    def inputs_of(self, lowered: Lowered, leaves: Sequence[Any]) -> Sequence[Any]:
        """In the file's layout and dtype."""
        return fitted_inputs(lowered.graph_module, leaves)

    def real(self, value: Any) -> Tensor | None:
        """Floats, and what integers with a scale stand for."""
        if isinstance(value, QTensor):
            return dequantize_real(value)
        return super().real(value)

    def stored(self, value: Tensor, like: Any, node: Node) -> Any:
        """On the grid of the other value, where that has one."""
        if isinstance(like, QTensor):
            return quantize_real(value, like.qtype)
        return super().stored(value, like, node)

    def is_activated(self, node: Node) -> bool:
        """As the operator's option says."""
        return node.kwargs.get("fused_activation_function", "NONE") != "NONE"

    def check_promise(self, lowered: Lowered, core: GraphModule) -> None:
        """Walk the file: every tensor that anything reads must be integers."""
        required = lowered.options.require
        assert required is not None
        check_promise(lowered.graph_module, lowered.to_bytes(), required, core)

    def simulate(self, lowered: Lowered, kernels: str) -> Simulation:
        """The graph with the arithmetic of LiteRT's reference, optimized or XNNPACK kernels."""
        for known in get_args(Kernels):
            if known == kernels:
                return Simulation(lowered.graph_module, known)
        fix = f"the known ones are {', '.join(get_args(Kernels))}"
        raise InputError(f"LiteRT has no {kernels!r} kernels", fix=fix)

    def operators_of(self, graph_module: GraphModule, core: str) -> dict[str, int]:
        """The file's operators that a core node has become, by their builtin names."""
        counts = super().operators_of(graph_module, core)
        return {name.upper(): count for name, count in counts.items() if name in ROWS}

    def can_verify(self) -> bool:
        """Whether LiteRT is installed."""
        return importlib.util.find_spec("ai_edge_litert") is not None

    def verify(self, lowered: Lowered, data: Iterable[Any], **options: Any) -> VerifyReport:
        """Run the file in LiteRT and compare every value with the last graph."""
        return verify(lowered.graph_module, list(lowered.segments()), data, **options)
