"""The layout in which the graph's inputs come and its outputs go.

With `io_layout="nhwc"` every input and output of rank 4 or 5 has its channels last. A tensor of
rank 3 may be a signal (N, C, L) or words (N, L, C), and nothing tells which: it stays as the model
has it unless `channels_last` names it. `channels_first` names those that stay whatever their rank.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

from torch.fx import GraphModule, Node

from fxquant.errors import InputError
from fxquant.ir.edit import code_generator
from fxquant.ir.state import state_of
from fxquant.tracing.codegen import SignatureCodeGen
from fxquant.tracing.signature import Signature, TensorSpec

from .layouts import Layout, natural
from .typed import shape_of, type_of

IoLayout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Borders:
    """Which inputs and outputs have their channels last; see the module docstring."""

    io_layout: IoLayout = "nchw"
    channels_last: tuple[str, ...] = ()
    channels_first: tuple[str, ...] = ()

    def layout(self, name: str, node: Node) -> Layout:
        """The layout of the input or output of that name."""
        rank = len(shape_of(node))
        last = self.io_layout == "nhwc" and rank in (4, 5) and name not in self.channels_first
        if name in self.channels_last:
            last = True
        return Layout((0, *range(2, rank), 1)) if last and rank > 2 else natural(rank)

    def check(self, names: set[str]) -> None:
        """Refuse names that the graph does not have.

        Raises:
            InputError: there are some, or one is named on both sides.
        """
        both = set(self.channels_last) & set(self.channels_first)
        unknown = (set(self.channels_last) | set(self.channels_first)) - names
        if both or unknown:
            what = "cannot be both channels first and last" if both else "is no input or output"
            raise InputError(
                f"{', '.join(sorted(both or unknown))} {what}",
                fix=f"the graph has {', '.join(sorted(names))}",
            )


def output_names(graph_module: GraphModule, count: int) -> tuple[str, ...]:
    """The names of the outputs: the user's own, else `output_0`, …"""
    known = getattr(state_of(graph_module).signature, "output_names", None)
    if known is not None and len(known) == count:
        return tuple(map(str, known))
    return ("output",) if count == 1 else tuple(f"output_{place}" for place in range(count))


def outputs_of(output: Node) -> list[Node]:
    """The values that the graph returns."""
    results = output.args[0]
    several = results if isinstance(results, list | tuple) else (results,)
    return [each for each in several if isinstance(each, Node)]


def update_signature(graph_module: GraphModule) -> None:
    """Let the graph be called with what its inputs are now."""
    graph, state = graph_module.graph, state_of(graph_module)
    if isinstance(state.signature, Signature):
        state.signature = _updated(state.signature, graph_module)
    generator = code_generator(graph)
    if isinstance(generator, SignatureCodeGen):
        generator = copy.copy(generator)
        generator.signature = _updated(generator.signature, graph_module)
        graph.set_codegen(generator)


def _updated(signature: Signature, graph_module: GraphModule) -> Signature:
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    (output,) = (node for node in graph_module.graph.nodes if node.op == "output")
    sides = (signature.inputs, inputs), (signature.outputs, outputs_of(output))
    if any(len(specs) != len(nodes) for specs, nodes in sides):
        return signature
    new = [tuple(map(_spec, specs, nodes)) for specs, nodes in sides]
    return replace(signature, inputs=new[0], outputs=new[1])


def _spec(spec: TensorSpec, node: Node) -> TensorSpec:
    kind = type_of(node)
    return replace(spec, shape=kind.shape, dtype=kind.dtype)
