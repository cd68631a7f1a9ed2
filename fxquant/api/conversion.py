"""Everything in one call: from a model to a verified file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fxquant.api.lowering import lower
from fxquant.api.preparation import chosen_pipeline, convert, prepare
from fxquant.api.subject import Model, sample_of, to_host, traced
from fxquant.backends.base import Backend, IoDtype, IoLayout, Lowered, LowerOptions, Require
from fxquant.backends.registry import get_backend
from fxquant.errors import InputError
from fxquant.passes.instruments import Instrument, watched
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.quant.spec import PRECISIONS

Quantize = str | QuantConfig | None


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
            if pipeline is not None or not target.any_stage:
                graph_module = chosen_pipeline(pipeline, "float")(graph_module)
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
            lowered.backend.verify(
                lowered, [to_host(sample_of(model, example_inputs, kwargs))]
            ).check()
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


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = time.perf_counter() - start
