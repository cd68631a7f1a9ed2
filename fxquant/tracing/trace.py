"""`trace`: one call of a model, followed and written down as a GraphModule.

    model(x)  ->  graph(%x): %conv = call_module[conv](%x); %relu = relu(%conv); return %relu

The replay of the graph equals the model on other inputs of the same shapes, in train and in eval
mode. The model is the same afterwards as before.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fxquant.errors import InputError, TraceError
from fxquant.ir.edit import make_graph_module
from fxquant.ir.state import state_of
from fxquant.tracing.codegen import SignatureCodeGen
from fxquant.tracing.dynamic.dimensions import largest, read_dynamic_shapes, trials
from fxquant.tracing.dynamic.generalize import failure_at, generalized
from fxquant.tracing.leaves import replicate, state_names
from fxquant.tracing.modules import ModuleStack
from fxquant.tracing.recorder import Recorder
from fxquant.tracing.signature import (
    Signature,
    bind,
    collect,
    collect_arguments,
    output_name,
    parameters_of,
    specs,
)
from fxquant.tracing.snapshot import Snapshot
from fxquant.tracing.structure import unflatten
from fxquant.tracing.values import Values


def trace(
    model: nn.Module | Callable[..., Any],
    example_inputs: Any,
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    fake: bool = True,
) -> fx.GraphModule:
    """Follow one call of a model and return it as a graph in the torch dialect.

    Args:
        model: a module, or a function of tensors.
        example_inputs: the positional arguments as a tuple; their values do not matter.
        kwargs: the keyword arguments.
        dynamic_shapes: names of dimensions whose size a call of the graph chooses, by input, as
            in `torch.export`: `{"x": {0: "batch"}}` or with `torch.export.Dim`.
        fake: run on tensors without data; False runs the model's own arithmetic.

    Raises:
        TraceError: the model's Python code depends on the values of tensors, or on the size of
            a named dimension.
        InputError: the arguments do not fit the model, or `dynamic_shapes` the arguments.
    """
    module = model if isinstance(model, nn.Module) else _Function(model)
    _refuse_module(module)
    parameters = parameters_of(module.forward)
    bound = bind(parameters, _positional(example_inputs), kwargs or {})
    structure, leaves = collect_arguments(bound)
    for name, tensor in leaves:
        _refuse_tensor(name, tensor)
    tensors = [tensor for _, tensor in leaves]
    dimensions, names = read_dynamic_shapes(dynamic_shapes or {}, tuple(bound), dict(leaves))
    inputs = tuple(
        replace(spec, names=names[place])
        for spec, (place, _) in zip(specs(leaves), leaves, strict=True)
    )
    signature = Signature(parameters, inputs, structure, dimensions=dimensions)
    graph_module = _Trace(module, signature, tensors, fake).run()
    if not dimensions:
        return graph_module
    return _for_all_sizes(module, graph_module, fake)


def _for_all_sizes(module: nn.Module, example: fx.GraphModule, fake: bool) -> fx.GraphModule:
    """The graph of one trace, made to hold for every size of the named dimensions."""
    signature = state_of(example).signature
    sizes = (*trials(signature.dimensions), *largest(signature.dimensions))
    traces = [example]
    for each in sizes:
        tensors = [
            torch.zeros(spec.resized(each), dtype=spec.dtype, device=spec.device)
            for spec in signature.inputs
        ]
        try:
            traces.append(_Trace(module, signature, tensors, fake).run())
        except Exception as error:
            raise failure_at(each, error) from error
    first = {dimension.name: dimension.size for dimension in signature.dimensions}
    return generalized(traces, (first, *sizes))


class _Function(nn.Module):
    """A function in the form of a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function


def _positional(example_inputs: Any) -> tuple[Any, ...]:
    if isinstance(example_inputs, Mapping):
        raise InputError(
            "example_inputs is a dict",
            fix="pass keyword arguments as kwargs=…, or one argument that is a dict as ({…},)",
        )
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,)
    return tuple(example_inputs)


def _refuse_tensor(name: str, example: torch.Tensor) -> None:
    if example.layout != torch.strided or example.is_quantized or example.is_nested:
        kind = "nested" if example.is_nested else f"{example.layout} {example.dtype}"
        raise InputError(
            f"input {name} is a {kind} tensor, which cannot be traced",
            fix="pass an ordinary dense tensor",
        )


def _refuse_module(module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise TraceError(
            "the model is a scripted module, which has no Python code to follow",
            fix="trace the original module before torch.jit.script or torch.jit.trace",
        )
    for name in (*module._modules, *module._parameters, *module._buffers):
        if name == "meta" or hasattr(fx.GraphModule, name):
            raise TraceError(
                f"the model has a part named {name!r}, a name that torch.fx uses itself",
                fix="rename the attribute",
            )
    lazy = (nn.UninitializedParameter, nn.UninitializedBuffer)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, lazy):
            raise TraceError(f"{name} is not initialized yet", fix="run the model once first")


def _compiled_code_off() -> contextlib.AbstractContextManager[Any]:
    """Let `torch.compile`d parts run as plain Python; importing dynamo takes seconds."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from reporting what tracing does on purpose."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # an error of the user's comes as an exception, once
    try:
        with warnings.catch_warnings():
            # a fake copy of a computed weight looks at its .grad
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
            # a compiled part is watched under its wrapper and under its own path
            warnings.filterwarnings("ignore", message="Using `torch.compile")
            yield
    finally:
        log.setLevel(level)


class _Trace:
    """One trace: the graph that grows, the model that runs, and what is needed to tidy up."""

    def __init__(
        self, model: nn.Module, signature: Signature, inputs: list[torch.Tensor], fake: bool
    ) -> None:
        self.model = model
        self.signature = signature
        self.inputs = inputs
        self.fake = fake
        self.fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.graph = fx.Graph()
        self.snapshot = Snapshot.take(model)
        self.root = replicate(model, self.snapshot)
        self.values = Values(self.graph, self.root, state_names(model), self.fake_mode)
        self.stack = ModuleStack(model, self.root)
        self.recorder = Recorder(self.graph, self.values, self.stack, self.snapshot)

    def run(self) -> fx.GraphModule:
        """Run the model and return its graph."""
        tensors = self._placeholders()
        arguments = unflatten(self.signature.input_structure, tensors)
        call = inspect.BoundArguments(self.signature.parameters, arguments)
        try:
            with self._prepared():
                with self.stack.watching(), self.recorder:
                    result = self.model(*call.args, **call.kwargs)
                signature = self._finish(result)
        finally:
            self.snapshot.restore()
        self.graph.set_codegen(SignatureCodeGen(signature))
        graph_module = make_graph_module(self.root, self.graph, type(self.model).__name__)
        state = state_of(graph_module)
        state.properties |= {"traced", "shapes"}
        state.signature = signature
        state.origin = self.stack.calls.origin
        return graph_module

    def _placeholders(self) -> list[torch.Tensor]:
        tensors = []
        for spec, example in zip(self.signature.inputs, self.inputs, strict=True):
            tensor = self._input(example)
            node = self.graph.placeholder(spec.name)
            node.meta["val"] = self.values.fake(tensor)
            self.values.bind(tensor, node)
            self.values.dependent.add(node)
            tensors.append(tensor)
        return tensors

    def _input(self, example: torch.Tensor) -> torch.Tensor:
        plain = example.detach()
        tensor = self.fake_mode.from_tensor(plain) if self.fake else plain.clone()
        return tensor.requires_grad_(example.requires_grad)

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Gradients on (so that `no_grad` is seen), backward hooks off."""
        for module in self.model.modules():
            module._backward_hooks.clear()
            module._backward_pre_hooks.clear()
        with torch.enable_grad(), _compiled_code_off(), _quiet():
            yield

    def _finish(self, result: Any) -> Signature:
        """Close the graph with the model's results."""
        self._write_buffers()
        structure, leaves = collect(result, "output")
        named = [(output_name(name, structure), tensor) for name, tensor in leaves]
        nodes = tuple(self.values.node_of(tensor) for _, tensor in leaves)
        output = self.graph.output(nodes)
        output.meta["val"] = tuple(node.meta["val"] for node in nodes)
        return replace(self.signature, outputs=specs(named, "output"), output_structure=structure)

    def _write_buffers(self) -> None:
        """`self.mean = new` on a buffer: the graph writes the new value into its own buffer."""
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                path = self.stack.paths[id(module)]
                original = self.snapshot.buffer_at(module, name)
                if buffer is None or original is None or buffer is original:
                    continue
                if self.values.is_traced(buffer) and buffer.shape == original.shape:
                    args = (self.values.node_of(original), self.values.node_of(buffer))
                    node = self.graph.create_node(
                        "call_method", "copy_", args, {}, f"{path}_{name}".replace(".", "_")
                    )
                    node.meta["val"] = self.values.fake(original)
