"""The few functions that a user needs: prepare, calibrate, convert, lower, compile.

    prepared  = prepare(model, example_inputs)
    calibrate(prepared, loader)
    quantized = convert(prepared)
    lower(quantized, "tflite").save("model.tflite")

Each returns a GraphModule that runs, until `lower`, whose result also writes a file.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from fxquant.backends.base import Backend, IoDtype, IoLayout, Lowered, LowerOptions, Require
from fxquant.backends.registry import get_backend
from fxquant.errors import ConfigError, FxquantError, InputError, PipelineError
from fxquant.ir.placement import on_host
from fxquant.ir.state import state_of
from fxquant.passes.free_batch_size import FixBatchSize
from fxquant.passes.instruments import Instrument, watched
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.quant.kept_ranges import give_ranges, take_ranges
from fxquant.quant.qat.preparation import own_copy, refuse_untrainable
from fxquant.quant.spec import PRECISIONS
from fxquant.report import Report, StayedFloat
from fxquant.tracing import trace
from fxquant.tracing.dynamic.generalizer import dimensions_of
from fxquant.tracing.exported import trace_exported
from fxquant.tracing.location import raised_at

Model = nn.Module | ExportedProgram
FIX_BATCH_SIZE = Pipeline((FixBatchSize(),), title="fix-batch-size")
Quantize = str | QuantConfig | None


@contextlib.contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside, and every module's own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def traced(
    model: Model,
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any = None,
) -> GraphModule:
    """The torch dialect of a model, or the graph itself if that is what was given."""
    named = None if kwargs is None else dict(kwargs)
    if isinstance(model, ExportedProgram):
        return trace_exported(model, example_inputs, named, dynamic_shapes)
    if isinstance(model, GraphModule) and state_of(model).properties:
        return model
    with _evaluated(model):
        try:
            return trace(model, example_inputs, kwargs=named, dynamic_shapes=dynamic_shapes)
        except FxquantError:
            raise
        except Exception as error:
            raise InputError(
                f"the model fails on the example inputs: {type(error).__name__}: {error}",
                source=str(raised_at(error) or ""),
                fix="give inputs of the shapes and dtypes that its forward takes",
            ) from error


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
    state = state_of(graph_module)
    target = get_backend(backend)
    state.target, state.constraints = target.name, target.constraints()
    state.config = QuantConfig() if config is None else config
    graph_module, ranges = take_ranges(graph_module)
    prepared = _pipeline(pipeline, "ptq")(graph_module)
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
    graph_module = traced(model, example_inputs, kwargs, dynamic_shapes)
    state = state_of(graph_module)
    target = get_backend(backend)
    state.target, state.constraints = target.name, target.constraints()
    state.config = QuantConfig() if config is None else config
    graph_module, _ = take_ranges(graph_module)
    return own_copy(_pipeline(pipeline, "qat")(graph_module), model)


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
    return _pipeline(pipeline, "freeze")(prepared)


def _pipeline(given: Pipeline | str | None, method: str) -> Pipeline:
    if given is None:
        return Pipeline.default(method)
    return Pipeline.parse(given) if isinstance(given, str) else given


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


@watched
def compile(
    model: Model,
    example_inputs: Any,
    *,
    quantize: Quantize = None,
    calibration: Iterable[Any] | None = None,
    backend: str | Backend = "tflite",
    output: str | Path | None = None,
    io_layout: IoLayout = "nchw",
    io_dtype: IoDtype | None = None,
    require: Require | None = None,
    config: QuantConfig | None = None,
    options: Mapping[str, Any] | None = None,
    pipeline: Pipeline | str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    progress: bool = True,
    verify: bool | None = None,
    instruments: Sequence[Instrument | str] = (),
) -> Lowered:
    """From a model to a program, and to a file where `output` is given.

    Args:
        model: any module, or a program of `torch.export`; it is not changed.
        example_inputs: a tuple of inputs, as in `torch.export`.
        quantize: None for float32, the name of a precision (`quant.spec.PRECISIONS`), e.g.
            "int8", "dynamic", "float16", or a `QuantConfig`.
        calibration: input tuples, tensors or batches; needed where activations are integers
            on grids that must be known beforehand.
        backend: the target's name, or a backend.
        output: where to write the file; nothing is written if None.
        io_layout: dimension order of image inputs and outputs of the file.
        io_dtype: dtype of quantized inputs and outputs of the file; by default what `require`
            demands, else float32.
        require: refuse a file that computes in anything but these integers; quantizes to them
            where `quantize` says nothing.
        config: what to quantize and how.
        options: the backend's own choices by name, e.g. `{"opset": 18}`.
        pipeline: passes to run instead of the default ones, up to the observers.
        kwargs: keyword inputs of the model.
        dynamic_shapes: dimensions whose size is chosen when the file runs, by input:
            `{"x": {0: "batch"}}`, as in `torch.export`; for backends that can have them.
        progress: show a bar while calibrating.
        verify: run the file on the example inputs in the backend's runtime before it is written;
            None does so where a file is written and the runtime is installed.
        instruments: what watches the passes, e.g. `["lint", "dump=folder"]`.

    Raises:
        FxquantError: its children say what is wrong; no file is written then.
    """
    LowerOptions.of(io_layout, io_dtype, options, require)
    quantize = require if quantize is None else quantize
    settings = _settings(quantize, config, calibration)
    if settings is not None and require is not None:
        settings = replace(settings, integer_only=True)
    target = get_backend(backend)
    chosen = dict(options or {})
    if settings is not None and settings.uniform in target.by_options:
        chosen = {**target.by_options[settings.uniform], **chosen}
        settings = None
    seconds: dict[str, float] = {}
    with _timed(seconds, "trace"):
        graph_module = traced(model, example_inputs, kwargs, dynamic_shapes)
    if settings is None:
        with _timed(seconds, "passes"):
            if pipeline is not None or not get_backend(backend).any_stage:
                graph_module = _pipeline(pipeline, "float")(graph_module)
    else:
        with _timed(seconds, "passes"):
            graph_module = prepare(
                graph_module, example_inputs, settings, pipeline=pipeline, backend=target
            )
        if calibration is not None:
            with _timed(seconds, "calibrate"):
                calibrate(graph_module, calibration, progress=progress)
        with _timed(seconds, "freeze"):
            graph_module = convert(graph_module)
    with _timed(seconds, "lower"):
        lowered = lower(
            graph_module,
            target,
            io_layout=io_layout,
            io_dtype=io_dtype,
            require=require,
            options=chosen,
        )
    lowered.report.seconds = seconds
    wanted = output is not None and lowered.backend.can_verify() if verify is None else verify
    if wanted:
        with _timed(seconds, "verify"):
            lowered.backend.verify(lowered, [_sample(model, example_inputs, kwargs)]).check()
    if output is not None:
        with _timed(seconds, "write"):
            lowered.save(output)
    return lowered


def _settings(
    quantize: Quantize, config: QuantConfig | None, calibration: Iterable[Any] | None
) -> QuantConfig | None:
    if isinstance(quantize, QuantConfig):
        if config is not None:
            raise InputError("the configuration is given twice", fix="drop quantize= or config=")
        settings = quantize
    elif quantize is None:
        if config is not None:
            raise InputError("config= is given, quantize= is not", fix='say quantize="int8"')
        return None
    else:
        settings = _of_precision(_known(quantize), config)
    if settings.needs_data and calibration is None:
        fix = "give calibration=: some dozens of inputs like those the device will see"
        raise InputError(f'quantize="{settings.precision}" needs calibration data', fix=fix)
    return settings


def _of_precision(name: str, config: QuantConfig | None) -> QuantConfig:
    """The configuration with a precision that it does not name itself."""
    given = QuantConfig() if config is None else config
    if given.precision not in {QuantConfig.precision, name}:
        what = f"quantize={name!r}, but the configuration says {given.precision!r}"
        raise InputError(what, fix="give the configuration as quantize=")
    return replace(given, precision=name)


def _known(name: str) -> str:
    """The name of a precision that is one."""
    known = [each for each in PRECISIONS if each != "float32"]
    if name not in known:
        fix = f"use None, a QuantConfig, or one of {', '.join(known)}"
        raise InputError(f"quantize={name!r} is not known", fix=fix)
    return name


def _sample(model: Model, example_inputs: Any, kwargs: Mapping[str, Any] | None) -> Any:
    """The example inputs as one sample of a data set: by name where some are given by name."""
    if not kwargs:
        return example_inputs
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    forward = model.module().forward if isinstance(model, ExportedProgram) else model.forward
    positional = inspect.signature(forward).bind_partial(*args).arguments
    return {**positional, **kwargs}


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = time.perf_counter() - start


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
    return lowered.backend.verify(lowered, data, **options)
