"""From a model to a quantized graph: prepare, prepare_qat, convert, quantize_dynamic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.fx import GraphModule

from fxquant.api.subject import Model, traced
from fxquant.backends.base import Backend
from fxquant.backends.registry import get_backend
from fxquant.errors import ConfigError, FxquantError
from fxquant.ir.state import state_of
from fxquant.passes.free_batch_size import batch_dimensions, mark_any_batch, takes_any_batch
from fxquant.passes.instruments import Instrument, watched
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig
from fxquant.quant.kept_ranges import give_ranges, take_ranges
from fxquant.quant.qat.preparation import own_copy, refuse_untrainable


def chosen_pipeline(given: Pipeline | str | None, method: str) -> Pipeline:
    if given is None:
        return Pipeline.default(method)
    return Pipeline.parse(given) if isinstance(given, str) else given


@watched
def prepare(
    model: Model,
    example_inputs: Any,
    config: QuantConfig | None = None,
    *,
    pipeline: Pipeline | str | None = None,
    backend: str | Backend = "tflite",
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    instruments: Sequence[Instrument | str] = (),
) -> GraphModule:
    """The model with observers in place, ready for `calibrate`.

    Args:
        model: any module, or a program of `torch.export`; it is not changed, and is followed in
            eval mode.
        example_inputs: a tuple of inputs, as in `torch.export`.
        config: what to quantize and how; the backend's defaults if None.
        pipeline: the passes to run instead of `Pipeline.default("ptq")`.
        backend: the target whose constraints decide what can be quantized.
        kwargs: keyword inputs of the model.
        dynamic_shapes: dimensions whose size is chosen when the graph is called, by input:
            `{"x": {0: "batch"}}`, as in `torch.export`.
        instruments: what watches the passes, e.g. `["lint", "dump=folder"]`.

    Raises:
        TraceError: the model's control flow depends on values of tensors.
        UnsupportedOp: an operation that functionalize does not know.
        PipelineError: the pipeline cannot run as listed.
    """
    graph_module = traced(model, example_inputs, kwargs, dynamic_shapes)
    _aim(graph_module, backend, config)
    graph_module, ranges = take_ranges(graph_module)
    prepared = chosen_pipeline(pipeline, "ptq")(graph_module)
    give_ranges(prepared, ranges)
    return prepared


@watched
def prepare_qat(
    model: nn.Module,
    example_inputs: Any,
    config: QuantConfig | None = None,
    *,
    pipeline: Pipeline | str | None = None,
    backend: str | Backend = "tflite",
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    instruments: Sequence[Instrument | str] = (),
) -> GraphModule:
    """The model with rounding in place, to be trained by an ordinary loop, then `convert`ed.

    Parameters and buffers have the names that they have in the model, which is not changed: the
    result has copies. Modules are in train or eval mode as the model's are.

    Args:
        model: any module; it is followed in eval mode, with dropout and batch norm kept.
        example_inputs: a tuple of inputs, as in `torch.export`.
        config: what to quantize and how; the backend's defaults if None.
        pipeline: the passes to run instead of `Pipeline.default("qat")`.
        backend: the target whose constraints decide what can be quantized.
        kwargs: keyword inputs of the model.
        dynamic_shapes: as for `prepare`.
        instruments: what watches the passes, e.g. `["lint", "dump=folder"]`.

    Raises:
        InputError: the model is an exported program or a graph whose batch norms are folded.
        TraceError: the model's control flow depends on values of tensors.
        UnsupportedOp: an operation that functionalize does not know.
        PipelineError: the pipeline cannot run as listed.
    """
    refuse_untrainable(model)
    passes = chosen_pipeline(pipeline, "qat")

    def prepared(shapes: Any) -> GraphModule:
        graph_module = traced(model, example_inputs, kwargs, shapes)
        _aim(graph_module, backend, config)
        graph_module, _ = take_ranges(graph_module)
        return passes(graph_module)

    result = prepared(dynamic_shapes)
    if pipeline is None and dynamic_shapes is None and not isinstance(model, GraphModule):
        result = _with_any_batch(result, prepared)
    return own_copy(result, model)


def _aim(graph_module: GraphModule, backend: str | Backend, config: QuantConfig | None) -> None:
    """Note which target a graph is for, and what to quantize."""
    state, target = state_of(graph_module), get_backend(backend)
    state.target, state.constraints = target.name, target.constraints()
    state.config = QuantConfig() if config is None else config


def _with_any_batch(
    graph_module: GraphModule, prepared: Callable[[Any], GraphModule]
) -> GraphModule:
    """The graph, or one with the batch as a named dimension where only that sets it free."""
    shapes = None if takes_any_batch(graph_module) else batch_dimensions(graph_module)
    if shapes is None:
        return graph_module
    try:
        return mark_any_batch(prepared(shapes))
    except FxquantError:  # the model does something else with other batches
        return graph_module


@watched
def convert(
    prepared: GraphModule,
    *,
    pipeline: Pipeline | str | None = None,
    instruments: Sequence[Instrument | str] = (),
) -> GraphModule:
    """The calibrated graph with its observers frozen into constants.

    Raises:
        CalibrationError: observers that saw nothing, by name.
        PipelineError: the graph was not prepared.
    """
    return chosen_pipeline(pipeline, "freeze")(prepared)


def quantize_dynamic(
    model: Model,
    example_inputs: Any,
    config: QuantConfig | None = None,
    *,
    pipeline: Pipeline | str | None = None,
    backend: str | Backend = "tflite",
    kwargs: Mapping[str, Any] | None = None,
) -> GraphModule:
    """The model with integer weights and activations that are quantized as they come; no data.

    Layers compute as the target's kernels for float inputs and integer weights do: each row of a
    dense layer's input (each sample of a convolution's) is put on its own 8-bit grid.

    Args:
        model: any module, or a program of `torch.export`; it is not changed.
        example_inputs: a tuple of inputs, as in `torch.export`.
        config: where to do otherwise; its precision is "dynamic" if None, and may be "dynamic4"
            or one that only stores weights narrow.
        pipeline: the passes to run instead of `Pipeline.default("ptq")`.
        backend: the target whose kernels decide which layers there are.
        kwargs: keyword inputs of the model.

    Returns:
        A graph that runs in torch, float32 in and out, ready for `lower`.

    Raises:
        ConfigError: the configuration asks for grids that need calibration.
    """
    settings = QuantConfig("dynamic") if config is None else config
    if settings.needs_data:
        raise ConfigError(
            f"the configuration asks for {settings.precision}, whose grids need calibration",
            fix='give QuantConfig("dynamic", …), or use prepare, calibrate and convert',
        )
    prepared = prepare(
        model, example_inputs, settings, pipeline=pipeline, backend=backend, kwargs=kwargs
    )
    return convert(prepared)
