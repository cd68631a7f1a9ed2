"""From a graph to a target's program, and how it is checked: lower, simulate, verify."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.fx import GraphModule

from fxquant.api.subject import to_host
from fxquant.backends.base import Backend, IoDtype, IoLayout, Lowered, LowerOptions, Require
from fxquant.backends.registry import get_backend
from fxquant.errors import InputError, PipelineError
from fxquant.ir.placement import on_host
from fxquant.ir.state import state_of
from fxquant.passes.free_batch_size import FixBatchSize, takes_any_batch
from fxquant.passes.instruments import Instrument, watched
from fxquant.passes.pipeline import Pipeline
from fxquant.report import Report, StayedFloat
from fxquant.tracing.dynamic.generalizer import dimensions_of

FIX_BATCH_SIZE = Pipeline((FixBatchSize(),), title="fix-batch-size")


@watched
def lower(
    graph_module: GraphModule,
    backend: str | Backend = "tflite",
    *,
    io_layout: IoLayout = "nchw",
    io_dtype: IoDtype | None = None,
    require: Require | None = None,
    options: Mapping[str, Any] | None = None,
    instruments: Sequence[Instrument | str] = (),
) -> Lowered:
    """The program of a graph in a backend's dialect.

    Args:
        graph_module: a traced, functional or converted graph.
        backend: the target's name, or a backend.
        io_layout: dimension order of image inputs and outputs of the file.
        io_dtype: dtype of quantized inputs and outputs of the file; by default what `require`
            demands, else float32.
        require: refuse a file that computes in anything but these integers; their kernels are
            used also where a float island would be faster.
        options: the backend's own choices by name, e.g. `{"opset": 18}`.
        instruments: what watches the passes, e.g. `["lint", "dump=folder"]`.

    Raises:
        InputError: options that the backend does not have.
        UnsupportedOp: operators that the backend lacks, all of them with the user's lines.
        PipelineError: the graph still holds observers.
    """
    target = get_backend(backend)
    chosen = LowerOptions.of(io_layout, io_dtype, options, require)
    steps = target.pipeline(chosen)
    _refuse_dynamic(graph_module, target)
    if not target.any_stage:
        graph_module = _core(graph_module)
    graph_module = on_host(graph_module)
    for node in graph_module.graph.nodes:
        node.meta["core"] = node.name
    program = steps(graph_module)
    report = Report(
        operators=target.count_operators(program),
        stayed_float=stayed_float(graph_module),
        notes=[line for lines in state_of(program).notes.values() for line in lines],
    )
    lowered = Lowered(program, target, chosen, report)
    if require is not None:
        target.check_promise(lowered, graph_module)
    report.size = lowered.size()
    return lowered


def _core(graph_module: GraphModule) -> GraphModule:
    """The core dialect of a graph, without observers and of one batch size."""
    properties = state_of(graph_module).properties
    if "observed" in properties:
        raise PipelineError("the graph still holds observers", fix="call convert before lower")
    if "functional" not in properties:
        graph_module = Pipeline.default("float")(graph_module)
    return FIX_BATCH_SIZE(graph_module)


def _refuse_dynamic(graph_module: GraphModule, target: Backend) -> None:
    if takes_any_batch(graph_module):
        return  # its files have the size of the example
    names = [dimension.name for dimension in dimensions_of(graph_module)]
    if names and not target.dynamic_shapes:
        raise InputError(
            f"files of the backend {target.name} have fixed shapes, but {', '.join(names)} is "
            "to be chosen later",
            fix="leave out dynamic_shapes",
        )


def stayed_float(graph_module: GraphModule) -> list[StayedFloat]:
    """What annotate left in float, each with its reason."""
    return list(state_of(graph_module).stayed_float)


def simulate(lowered: Lowered, kernels: str = "reference") -> nn.Module:
    """The program in torch, with the arithmetic of one set of the runtime's kernels.

    Args:
        lowered: what `lower` or `compile` returned.
        kernels: for TFLite "reference", "optimized" or "xnnpack"; they round differently.

    Raises:
        InputError: the backend does not know these kernels.
    """
    return lowered.backend.simulate(lowered, kernels)


def verify(lowered: Lowered, data: Iterable[Any], **options: Any) -> Any:
    """Run the file in its runtime on data and compare it with the last graph, value by value.

    Args:
        lowered: what `lower` or `compile` returned.
        data: inputs as the file takes them (layout and dtype of its borders).
        **options: the backend's own, e.g. `kernels="reference"`.
    """
    return lowered.backend.verify(lowered, map(to_host, data), **options)
