"""Take the mean error of quantization out of convolutions and linear layers, through their biases.

    prepared = calibrate(prepare(model, example_inputs), loader)
    correct_bias(prepared, loader)

Rounding weights and clipping activations shift the mean of every output channel a little, and the
shifts add up through a deep network. Channel means are compared with the float graph's on a few
samples, layer by layer in order, each layer reading what the corrected ones before it give.
Nothing is added to the program: only constants change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fxquant.errors import CalibrationError
from fxquant.ir.aten import named_arguments, packet_name
from fxquant.ir.edit import add_parameter, is_attribute, read_attribute, tensor_at
from fxquant.quant.batches import BatchRunner
from fxquant.quant.constraints import annotation_of
from fxquant.quant.settle import fake_quantizes, settle

Call = tuple[GraphModule, tuple[Tensor, ...]]
BIAS = 2
"""The place of the bias among the arguments of convolutions and linear layers."""


def correct_bias(
    prepared: GraphModule,
    data: Iterable[Any],
    *,
    samples: int = 32,
    transform: Callable[[Any], Any] | None = None,
) -> GraphModule:
    """Change biases so that channel means under quantization are those of the float graph.

    Args:
        prepared: a calibrated graph; its biases are replaced, the user's tensors are not touched.
        data: batches of inputs, as for `calibrate`; only the first ones are used.
        samples: how many samples to use. Their activations are held in memory.
        transform: makes the inputs from a batch.

    Returns:
        The graph itself.

    Raises:
        CalibrationError: the graph was not calibrated, or there are no data.
        InputError: a batch does not fit the model's inputs.
    """
    if not all(module.quantizing for _, module in fake_quantizes(prepared)):
        raise CalibrationError("the graph simulates nothing yet", fix="run calibrate before")
    calls = list(_calls(prepared, data, samples, transform))
    if not calls:
        raise CalibrationError("there are no data", fix="give an iterable with at least one batch")
    with torch.no_grad():
        with _as_float(prepared):
            wanted = _run(calls, lambda node, mean: None)
        shifts: dict[str, Tensor] = {}

        def shift_to_wanted(node: Node, mean: Tensor) -> Tensor:
            shifts[node.name] = wanted[node.name] - mean
            return shifts[node.name]

        _run(calls, shift_to_wanted)
    for node in list(prepared.graph.nodes):
        if node.name in shifts:
            _shift(prepared, node, shifts[node.name])
    prepared.recompile()
    settle(prepared)
    return prepared


def _calls(
    prepared: GraphModule, data: Iterable[Any], samples: int, transform: Callable[[Any], Any] | None
) -> Iterator[Call]:
    """The calls for the first samples, all of one batch size."""
    runner = BatchRunner(prepared)
    first: GraphModule | None = None
    for number, batch in enumerate(data):
        for graph, leaves in runner.calls(batch if transform is None else transform(batch), number):
            first = first or graph
            if graph is first:
                yield graph, leaves
                samples -= leaves[0].shape[0] if leaves and leaves[0].dim() else 1
            if samples <= 0:
                return


@contextlib.contextmanager
def _as_float(prepared: GraphModule) -> Iterator[None]:
    modules = [module for _, module in fake_quantizes(prepared)]
    for module in modules:
        module.quantizing = False
    try:
        yield
    finally:
        for module in modules:
            module.quantizing = True


def _run(calls: list[Call], shift: Callable[[Node, Tensor], Tensor | None]) -> dict[str, Tensor]:
    """Run all calls in step, node by node; the channel means of what can be corrected.

    Args:
        calls: all on one graph.
        shift: what to add to a node's channels, given their means, before anything reads them.
    """
    graph = calls[0][0].graph
    runs = [_Run(*call) for call in calls]
    means: dict[str, Tensor] = {}
    for node in graph.nodes:
        for run in runs:
            run.step(node)
        axis = channel_axis(node)
        if axis is None:
            continue
        results = [run.env[node] for run in runs]
        mean = torch.stack([_mean(result, axis) for result in results]).mean(0)
        means[node.name] = mean
        added = shift(node, mean)
        if added is not None:
            for run in runs:
                run.env[node] = run.env[node] + _along(added, run.env[node], axis)
    return means


class _Run(Interpreter):
    """One call that is carried out a node at a time; values are dropped after their last use."""

    def __init__(self, graph_module: GraphModule, inputs: tuple[Tensor, ...]) -> None:
        super().__init__(graph_module)
        self.args_iter = iter(inputs)

    def step(self, node: Node) -> None:
        self.env[node] = self.run_node(node)
        for done in self.user_to_last_uses.get(node, ()):
            del self.env[done]


def channel_axis(node: Node) -> int | None:
    """The axis of the output that a node's bias runs along; None where there is no bias to
    correct."""
    annotation = annotation_of(node)
    if annotation is None or annotation.row is None or not annotation.quantized:
        return None
    if not any(role.kind == "int32" for role in annotation.row.operands.values()):
        return None
    bias = named_arguments(node)["bias"]
    known = bias is None or is_attribute(bias)
    return (1 if packet_name(node.target).startswith("conv") else -1) if known else None


def _mean(value: Tensor, axis: int) -> Tensor:
    return value.movedim(axis, 0).flatten(1).mean(1)


def _along(shift: Tensor, value: Tensor, axis: int) -> Tensor:
    shape = [1] * value.dim()
    shape[axis] = -1
    return shift.reshape(shape)


def _shift(root: GraphModule, node: Node, shift: Tensor) -> None:
    """Give a node a bias of its own: a bias may be shared, and belongs to the user's model."""
    bias = named_arguments(node)["bias"]
    before = tensor_at(root, bias).detach() if isinstance(bias, Node) else torch.zeros_like(shift)
    path = str(bias.target) if isinstance(bias, Node) else f"{node.name}_bias"
    path = add_parameter(root, path, before + shift.to(before.dtype))
    with root.graph.inserting_before(node):
        new = read_attribute(root.graph, root, path)
    node.args = (*node.args[:BIAS], new, *node.args[BIAS + 1 :])
