"""The ONNX backend: constraints, pipeline, writer and verifier in one place."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.backends.base import Backend, Lowered, LowerOptions, Segment
from fxquant.errors import OutputError
from fxquant.ir.recurrent import SEQUENCES
from fxquant.passes.base import Pass
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.unroll_recurrent import UnrollRecurrent
from fxquant.quant.constraints import ConstraintTable

from .constraints import TABLE
from .dialect import OPERATORS
from .dialect.quantization import dequantize_linear, quantize_linear
from .external_data import save
from .legalize import LegalizeOnnx
from .options import OnnxOptions
from .passes.reduce_precision import ReducePrecision
from .passes.widen_operators import WidenOperators
from .serialize import require_onnx, serialize
from .verify import OnnxReport, verify


class OnnxBackend(Backend):
    """Protobufs for ONNX Runtime, TensorRT and their kin."""

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    options_class: ClassVar[type[Any] | None] = OnnxOptions
    by_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "float16": {"precision": "float16"},
        "bfloat16": {"precision": "bfloat16"},
    }
    dynamic_shapes: ClassVar[bool] = True

    def constraints(self) -> ConstraintTable:
        """Where integers pay."""
        return TABLE

    def pipeline(self, options: LowerOptions) -> Pipeline:
        """legalize; where floats are narrowed, that comes before it, and casts after it."""
        chosen = self.own_options(options)
        assert isinstance(chosen, OnnxOptions)
        self.refuse_borders(options)
        require_onnx()
        before: tuple[Pass, ...] = (UnrollRecurrent(keep=tuple(SEQUENCES.values())),)
        if chosen.precision != "float32":
            before = (*before, ReducePrecision(chosen.precision))
        legalize = LegalizeOnnx(opset=chosen.version, float_bias=chosen.float_bias)
        after = (WidenOperators(),) if before and chosen.cast_missing else ()
        return Pipeline((*before, legalize, *after), title="onnx")

    def stored(self, value: Tensor, like: Any, node: Node) -> Any:
        """Behind DequantizeLinear, on its grid."""
        if node.target is dequantize_linear and isinstance(node.args[0], Node):
            rounding = node.args[0]
            grid = (*rounding.args[1:], *node.args[1:])
            if rounding.target is quantize_linear and not any(isinstance(g, Node) for g in grid):
                integers = quantize_linear(value, *rounding.args[1:], **rounding.kwargs)
                return dequantize_linear(integers, *node.args[1:], **node.kwargs)
        return super().stored(value, like, node)

    def write(self, graph_module: GraphModule, options: LowerOptions) -> Sequence[Segment]:
        """The protobuf, then the weights where they do not fit into it."""
        chosen = self.own_options(options)
        assert isinstance(chosen, OnnxOptions)
        return serialize(graph_module, chosen.version, external=chosen.external_data)

    def join(self, segments: Sequence[Segment]) -> bytes:
        """The protobuf, which must hold everything."""
        if len(segments) > 1:
            raise OutputError(
                "the weights are stored outside of the protobuf, so one string cannot hold it",
                fix="write it with save()",
            )
        return bytes(segments[0])

    def save(self, segments: Sequence[Segment], path: Path) -> None:
        """Write the file, and its weights beside it where they do not fit."""
        save(segments, path)

    def count_operators(self, graph_module: GraphModule) -> dict[str, int]:
        """The file's operators by their names in the standard."""
        return self._named(super().count_operators(graph_module))

    def operators_of(self, graph_module: GraphModule, core: str) -> dict[str, int]:
        """The file's operators that a core node has become."""
        return self._named(super().operators_of(graph_module, core))

    def _named(self, counts: dict[str, int]) -> dict[str, int]:
        return {OPERATORS[called].name: count for called, count in counts.items()}

    def can_verify(self) -> bool:
        """Whether ONNX Runtime is installed."""
        return importlib.util.find_spec("onnxruntime") is not None

    def verify(self, lowered: Lowered, data: Iterable[Any], **options: Any) -> OnnxReport:
        """Run the file in ONNX Runtime and compare every value with the last graph."""
        return verify(lowered, data, **options)
