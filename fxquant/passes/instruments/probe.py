"""Probe inputs: random ones, the user's own, and the same ones for a graph with other borders.

f32[1,3,8,8]  ->  i8<0.02,-3>[1,8,8,3]    the graph is called channels last, with integers
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fxquant.errors import InputError
from fxquant.ir.edit import code_generator
from fxquant.ir.types import Quantization, TensorType

IO_PERMUTATION = "io_permutation"


def placeholders(graph_module: GraphModule) -> list[Node]:
    """The inputs of a graph."""
    return [node for node in graph_module.graph.nodes if node.op == "placeholder"]


def probe_inputs(graph_module: GraphModule, seed: int = 0) -> list[Any]:
    """Random inputs of the right shapes and dtypes, one for each placeholder.

    Floats are standard normal; integers are 0 or 1, which are indices into anything.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_random_like(node.meta.get("val"), generator) for node in placeholders(graph_module)]


def _random_like(value: Any, generator: torch.Generator) -> Any:
    if not isinstance(value, Tensor):
        return value
    shape = [int(size) for size in value.shape]
    if value.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(value.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(value.dtype)


def given_inputs(graph_module: GraphModule, given: Any) -> list[Any]:
    """A user's inputs, one value for each placeholder.

    Args:
        graph_module: the graph.
        given: a tuple as the model is called with, a dict of arguments, one tensor, or the flat
            list of the placeholders' values.

    Raises:
        InputError: there are more or fewer than the graph takes.
    """
    flat = [given] if isinstance(given, Tensor) else given
    signature = getattr(code_generator(graph_module.graph), "signature", None)
    if isinstance(flat, Mapping) and signature is not None:
        return list(signature.flatten((), dict(flat)))
    values = list(flat)
    wanted = len(placeholders(graph_module))
    if signature is not None and not all(isinstance(value, Tensor) for value in values):
        values = list(signature.flatten(tuple(values), {}))
    if len(values) != wanted:
        raise InputError(f"the probe has {len(values)} values, the graph takes {wanted}")
    return values


def fitted_inputs(graph_module: GraphModule, values: Sequence[Any]) -> list[Any]:
    """Values that fitted an earlier stage in the layout and dtype of this one's inputs."""
    nodes = placeholders(graph_module)
    return [_fitted(node, value) for node, value in zip(nodes, values, strict=True)]


def _fitted(node: Node, value: Any) -> Any:
    expected = node.meta.get("val")
    if not isinstance(expected, Tensor) or not isinstance(value, Tensor):
        return value
    permutation = node.meta.get(IO_PERMUTATION)
    if permutation is not None:
        value = value.permute(*permutation).contiguous()
    quantization = quantization_near(node, list(node.users))
    if value.dtype == expected.dtype or quantization is None:
        return value
    return _quantized(value, expected.dtype, quantization)


def quantization_near(node: Node, neighbors: Sequence[Node]) -> Quantization | None:
    """What the integers of a border stand for: it is said of the value right behind it."""
    kinds = (each.meta.get("type") for each in (node, *neighbors))
    known = (kind.quantization for kind in kinds if isinstance(kind, TensorType))
    return next((quantization for quantization in known if quantization), None)


def _quantized(value: Tensor, dtype: torch.dtype, quantization: Quantization) -> Tensor:
    limits = torch.iinfo(dtype)
    scaled = torch.round(value.double() / quantization.scale[0]) + quantization.zero_point[0]
    return scaled.clamp(limits.min, limits.max).to(dtype)


def output_nodes(graph_module: GraphModule) -> list[Any]:
    """What the graph returns, in a flat list."""
    (output,) = graph_module.graph.find_nodes(op="output")
    returned = output.args[0]
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def comparable_outputs(graph_module: GraphModule, outputs: Any, reference: GraphModule) -> Any:
    """The outputs as reals, in the dimension order of the reference's.

    What both graphs return alike stays as it is, so that integers are compared as such.
    """
    if not isinstance(outputs, list | tuple):
        return outputs
    nodes, others = output_nodes(graph_module), output_nodes(reference)
    turns = output_permutations(graph_module, len(outputs))
    if turns == output_permutations(reference, len(outputs)):
        turns = [None] * len(outputs)
    return [_comparable(*each) for each in zip(nodes, others, outputs, turns, strict=True)]


def output_permutations(graph_module: GraphModule, count: int) -> list[Any]:
    """How each output is permuted against the model's, None where it is not."""
    (output,) = graph_module.graph.find_nodes(op="output")
    return list(output.meta.get(IO_PERMUTATION) or [None] * count)


def _comparable(node: Any, reference: Any, value: Any, permutation: Any) -> Any:
    if not isinstance(value, Tensor) or not isinstance(node, Node):
        return value
    expected = reference.meta.get("val") if isinstance(reference, Node) else None
    if isinstance(expected, Tensor) and expected.dtype != value.dtype:
        quantization = quantization_near(node, node.all_input_nodes)
        if quantization is not None:
            shifted = value.double() - quantization.zero_point[0]
            value = (shifted * quantization.scale[0]).to(expected.dtype)
    if permutation is None:
        return value
    return value.permute(*(permutation.index(axis) for axis in range(len(permutation))))


@contextlib.contextmanager
def unchanged(graph_module: GraphModule) -> Iterator[None]:
    """Random state and buffers (running statistics) as before, whatever a run does."""
    saved = [(buffer, buffer.clone()) for buffer in graph_module.buffers()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            yield
        finally:
            for buffer, value in saved:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def run_flat(graph_module: GraphModule, inputs: Sequence[Any]) -> Any:
    """The flat outputs of a graph for flat inputs; the graph is left as it was."""
    with unchanged(graph_module):
        return Interpreter(graph_module).run(*inputs, enable_io_processing=False)


def run_nodes(graph_module: GraphModule, inputs: Sequence[Any]) -> dict[str, Any]:
    """The value of every node of a graph by the node's name."""
    values: dict[str, Any] = {}

    class Recorder(Interpreter):
        """Keeps what each node computed."""

        def run_node(self, n: Node) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    with unchanged(graph_module):
        Recorder(graph_module, garbage_collect_values=False).run(
            *inputs, enable_io_processing=False
        )
    return values
