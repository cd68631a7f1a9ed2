"""What users hand over: a module, an exported program, or a graph; always followed in eval mode."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from fxquant.errors import FxquantError, InputError
from fxquant.ir.placement import HOST
from fxquant.ir.state import state_of
from fxquant.tracing import trace
from fxquant.tracing.exported import trace_exported
from fxquant.tracing.location import raised_at

Model = nn.Module | ExportedProgram


@contextlib.contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
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
    with evaluated(model):
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


def sample_of(model: Model, example_inputs: Any, kwargs: Mapping[str, Any] | None) -> Any:
    """The example inputs as one sample of a data set: by name where some are given by name."""
    if not kwargs:
        return example_inputs
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    forward = model.module().forward if isinstance(model, ExportedProgram) else model.forward
    positional = inspect.signature(forward).bind_partial(*args).arguments
    return {**positional, **kwargs}


def to_host(batch: Any) -> Any:
    """Inputs for a runtime, which reads the host's memory."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().to(HOST), batch)
