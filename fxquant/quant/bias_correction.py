"""Take the mean error of quantization out of convolutions and linear layers, through their biases.

    prepared = calibrate(prepare(model, example_inputs), loader)
    correct_bias(prepared, loader)

Rounding weights and clipping activations shift the mean of every output channel a little, and the
shifts add up through a deep network. Channel means are compared with the float graph's on a few
samples, layer by layer in order, each layer reading what the corrected ones before it give. A mean
of few samples is uncertain: each correction is shrunk by as much as the samples disagree on it.
Nothing is added to the program: only constants change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.errors import CalibrationError
from fxquant.ir.aten import named_arguments
from fxquant.ir.edit import add_parameter, get_attribute, is_attribute, read_attribute, tensor_at
from fxquant.ir.stepping import Stepper
from fxquant.ir.views import convolution
from fxquant.quant.batches import BatchRunner, Call
from fxquant.quant.constraints import annotation_of
from fxquant.quant.grouping import GRID
from fxquant.quant.settle import fake_quantizes, settle
from fxquant.quant.spec import Precision

BIAS = 2
"""The place of the bias among the arguments of convolutions and linear layers."""

UNCORRECTED = "uncorrected_bias"
"""Where a layer notes the path of the bias that it had before; None where it had none."""


UNROUNDED = "unrounded_weight"
"""Where a layer notes the path of the weight that it had before it was rounded by its effect."""


def correct_bias(
    prepared: GraphModule,
    data: Iterable[Any],
    *,
    samples: int = 32,
    transform: Callable[[Any], Any] | None = None,
) -> GraphModule:
    """Change biases so that channel means under quantization are those of the float graph.

    `calibrate` does so by itself; this is for graphs whose configuration leaves it out. A graph
    that was corrected before is corrected anew, not twice. Layers whose weights were rounded by
    their effect (`refine_rounding`) are left as they are: correcting them was found to harm.

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
    check_calibrated(prepared)
    restore_bias(prepared)
    correct_bias_on(prepared, calls_of(prepared, data, samples, transform))
    return prepared


def correct_bias_on(prepared: GraphModule, calls: Sequence[Call]) -> None:
    """The same with calls that are at hand: of the graph itself, or copies with its nodes' names.

    The biases must be the float model's (see `restore_bias`).
    """
    with torch.no_grad():
        with _as_float(prepared):
            wanted = _float_means(calls)
        shifts: dict[str, Tensor] = {}

        def shift_to_wanted(node: Node, means: Tensor) -> Tensor:
            shifts[node.name] = certain_mean(wanted[node.name] - means)
            return shifts[node.name]

        _run(calls, shift_to_wanted)
    for node in list(prepared.graph.nodes):
        if node.name in shifts:
            _shift(prepared, node, shifts[node.name])
    prepared.recompile()
    settle(prepared)


def restore_bias(prepared: GraphModule) -> None:
    """Let every layer read the bias again that it had before it was corrected."""
    for node in prepared.graph.nodes:
        if UNCORRECTED not in node.meta:
            continue
        path = node.meta.pop(UNCORRECTED)
        old = None
        if path is not None:
            with prepared.graph.inserting_before(node):
                old = read_attribute(prepared.graph, prepared, path)
        corrected = node.args[BIAS]
        node.args = (*node.args[:BIAS], old, *node.args[BIAS + 1 :])
        prepared.graph.erase_node(corrected)


def check_calibrated(prepared: GraphModule) -> None:
    """Raise CalibrationError unless every value is rounded."""
    if not all(module.quantizing for _, module in fake_quantizes(prepared)):
        raise CalibrationError("the graph simulates nothing yet", fix="run calibrate before")


def calls_of(
    prepared: GraphModule, data: Iterable[Any], samples: int, transform: Callable[[Any], Any] | None
) -> list[Call]:
    """The calls for the first samples.

    Raises:
        CalibrationError: there are none.
    """
    calls = list(_first_calls(prepared, data, samples, transform))
    if not calls:
        raise CalibrationError("there are no data", fix="give an iterable with at least one batch")
    return calls


def _first_calls(
    prepared: GraphModule, data: Iterable[Any], samples: int, transform: Callable[[Any], Any] | None
) -> Iterator[Call]:
    runner = BatchRunner(prepared)
    for number, batch in enumerate(data):
        for graph, leaves in runner.calls(batch if transform is None else transform(batch), number):
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


def _float_means(calls: Sequence[Call]) -> dict[str, Tensor]:
    """The channel means before quantization; one call after the other, which the cache likes."""
    parts = [_run([call], lambda node, means: None, exact=True) for call in calls]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _run(
    calls: Sequence[Call], shift: Callable[[Node, Tensor], Tensor | None], exact: bool = False
) -> dict[str, Tensor]:
    """Run all calls in step, node by node; the channel means of what can be corrected.

    Args:
        calls: of one graph or of copies of it.
        shift: what to add to a node's channels, given their means [samples, channels], before
            anything reads them.
        exact: use the weights that layers had before they were rounded by their effect.
    """
    runs = [Run(*call) for call in calls]
    found: dict[str, Tensor] = {}
    constants: set[str] = set()
    for nodes in zip(*(graph.graph.nodes for graph, _ in calls), strict=True):
        node = nodes[0]
        constant = _is_constant(node, constants)
        for run, own in zip(runs, nodes, strict=True):
            if exact and UNROUNDED in own.meta:
                run.env[own.all_input_nodes[1]] = get_attribute(run.module, own.meta[UNROUNDED])
            run.step(own, runs[0].env[node] if constant and run is not runs[0] else None)
        if constant:
            constants.add(node.name)
            continue
        axis = channel_axis(node)
        if axis is None or UNROUNDED in node.meta:
            continue
        pairs = list(zip(runs, nodes, strict=True))
        means = torch.cat([_means(run.env[own], axis) for run, own in pairs])
        found[node.name] = means
        added = shift(node, means)
        if added is not None:
            for run, own in pairs:
                run.env[own] = run.env[own] + _along(added, run.env[own], axis)
    return found


def _is_constant(node: Node, constants: set[str]) -> bool:
    """Whether a node has the same value in every call: a stored tensor, or what is made of such."""
    if node.op not in {"call_function", "call_module"}:
        return node.op == "get_attr"
    sources = node.all_input_nodes
    return bool(sources) and all(source.name in constants for source in sources)


class Run(Stepper):
    """One call that is carried out a node at a time; values are dropped after their last use."""

    def __init__(self, graph_module: GraphModule, inputs: tuple[Tensor, ...]) -> None:
        super().__init__(graph_module)
        self.args_iter = iter(inputs)

    def step(self, node: Node, known: Tensor | None) -> None:
        """Run a node, or take its known value."""
        self.env[node] = self.run_node(node) if known is None else known
        for done in self.user_to_last_uses.get(node, ()):
            del self.env[done]


def channel_axis(node: Node) -> int | None:
    """The axis of the output that a node's bias runs along; None where there is no bias to
    correct."""
    annotation = annotation_of(node)
    if annotation is None or annotation.row is None:
        return None
    if not _has_integer_weights(annotation.precision):
        return None
    if GRID in node.meta:  # all steps of a recurrent layer read one bias
        return None
    if not any(role.kind == "int32" for role in annotation.row.operands.values()):
        return None
    bias = named_arguments(node)["bias"]
    if bias is not None and not is_attribute(bias):
        return None
    view = convolution(node)
    return -1 if view is None else -1 - len(view.stride)


def _has_integer_weights(precision: Precision) -> bool:
    weights = precision.weights
    return precision.form != "rounded" and weights is not None and not weights.rounds


def _means(value: Tensor, axis: int) -> Tensor:
    """Channel means of each sample, [samples, channels]."""
    if value.dim() < 2 or axis % value.dim() == 0:
        return value.movedim(axis, 0).flatten(1).mean(1)[None]
    return value.movedim(axis, 1).flatten(2).mean(2) if value.dim() > 2 else value


def certain_mean(differences: Tensor) -> Tensor:
    """The mean over samples, times the share of its square that is not chance.

    >>> certain_mean(torch.tensor([[1.0, 5.0], [1.0, -4.0]])).tolist()
    [1.0, 0.006...]
    """
    mean, count = differences.mean(0), differences.shape[0]
    if count == 1:
        return mean
    chance = differences.var(0) / count
    return mean * (mean**2 / (mean**2 + chance).clamp(min=torch.finfo(mean.dtype).tiny))


def _along(shift: Tensor, value: Tensor, axis: int) -> Tensor:
    shape = [1] * value.dim()
    shape[axis] = -1
    return shift.reshape(shape)


def _shift(root: GraphModule, node: Node, shift: Tensor) -> None:
    bias = named_arguments(node)["bias"]
    node.meta[UNCORRECTED] = str(bias.target) if isinstance(bias, Node) else None
    add_to_bias(root, node, shift)


def add_to_bias(root: GraphModule, node: Node, shift: Tensor) -> None:
    """Give a node a bias of its own: a bias may be shared, and belongs to the user's model.

    Args:
        root: the graph.
        node: a convolution or linear layer, with a stored bias or without one.
        shift: what to add to each channel.
    """
    bias = named_arguments(node)["bias"]
    before = tensor_at(root, bias).detach() if isinstance(bias, Node) else torch.zeros_like(shift)
    path = str(bias.target) if isinstance(bias, Node) else f"{node.name}_bias"
    path = add_parameter(root, path, before + shift.to(before))
    with root.graph.inserting_before(node):
        new = read_attribute(root.graph, root, path)
    node.args = (*node.args[:BIAS], new, *node.args[BIAS + 1 :])
