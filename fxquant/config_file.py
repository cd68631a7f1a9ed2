"""A configuration that a person can keep: written with every node, edited, read again.

write_config(model, "mixed.yaml", example_inputs=(x,))
…                                                   edit a line
config = QuantConfig.from_yaml(Path("mixed.yaml"))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.fx import GraphModule

from fxquant.api import prepare, traced
from fxquant.backends.base import Backend
from fxquant.errors import InputError, OutputError
from fxquant.ir.state import state_of
from fxquant.passes.annotate import Annotate
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig


def write_config(
    model: nn.Module,
    path: str | Path,
    *,
    example_inputs: Any = None,
    config: QuantConfig | None = None,
    backend: str | Backend = "tflite",
    kwargs: Mapping[str, Any] | None = None,
) -> QuantConfig:
    """Write what every operator computes in as YAML, each line with name, shape and reason.

    Args:
        model: what `prepare` returned, or any module.
        path: the file to write.
        example_inputs: needed for a module.
        config: where to begin; the target's defaults if None. For a module only.
        backend: the target; for a module only.
        kwargs: keyword inputs of the model.

    Returns:
        The configuration as `QuantConfig.from_yaml` reads it from the file.

    Raises:
        InputError: a module without example inputs.
        ConfigError: rules that do not fit the model.
        OutputError: the file cannot be written.
    """
    graph_module = _annotated(model, example_inputs, config, backend, kwargs)
    used = state_of(graph_module).config
    assert isinstance(used, QuantConfig)
    text = used.to_yaml(graph_module)
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    return QuantConfig.from_yaml(text)


def _annotated(
    model: nn.Module,
    example_inputs: Any,
    config: QuantConfig | None,
    backend: str | Backend,
    kwargs: Mapping[str, Any] | None,
) -> GraphModule:
    properties = state_of(model).properties if isinstance(model, GraphModule) else set()
    if isinstance(model, GraphModule) and "annotated" in properties:
        return model
    if not properties and example_inputs is None and not kwargs:
        fix = "write_config(model, path, example_inputs=(x,))"
        raise InputError("a model is prepared by following it on example inputs", fix=fix)
    inputs = () if example_inputs is None else example_inputs
    core = traced(model, inputs, kwargs)
    if "functional" not in state_of(core).properties:
        core = Pipeline.default("float")(core)
    return prepare(core, inputs, config, pipeline=Pipeline((Annotate(),)), backend=backend)
