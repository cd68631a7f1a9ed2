"""Ranges that a model brings along: a generated file of a prepared graph, prepared again.

    %relu_fq = fake_quantize<int8> @relu_fq(%relu)     ->   the graph without it, to be prepared
    %conv = conv2d(%relu_fq, …)                             … and afterwards, where %relu is
                                                            quantized the same way: its range again

So a file can be edited by hand at that stage too: what was changed is decided anew and needs
calibrating, all other values have the scales that they had.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import GraphModule, Node

from fxquant.errors import InputError, Problem
from fxquant.ir.edit import copy_graph_module, get_attribute
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.settle import fake_quantizes
from fxquant.quant.stubs import DeQuantStub, QuantStub

Ranges = Mapping[str, list[FakeQuantize]]


def take_ranges(graph_module: GraphModule) -> tuple[GraphModule, Ranges]:
    """A traced graph without its quantizers, and those by the value that they round.

    Raises:
        InputError: quantizers in training, whose batch norms are not folded; all of them.
    """
    if not any(fake_quantizes(graph_module)):
        return graph_module, {}
    graph_module = copy_graph_module(graph_module)
    found = list(fake_quantizes(graph_module))
    trained = [node for node, module in found if type(module) is not FakeQuantize]
    if trained:
        raise InputError(
            "the model is prepared for training already",
            fix="train it as it is, or prepare the file of an earlier stage",
            problems=[
                Problem(f"@{node.target}", format_node(node, graph_module), source_text(node))
                for node in trained
            ],
        )
    ranges: dict[str, list[FakeQuantize]] = {}
    for node, module in found:
        value = node.all_input_nodes[0]
        ranges.setdefault(_name(graph_module, value), []).append(module)
        node.replace_all_uses_with(value)
        graph_module.graph.erase_node(node)
    return graph_module, ranges


def give_ranges(prepared: GraphModule, ranges: Ranges) -> None:
    """Let quantizers of the same values, and of the same kind, go on where those were."""
    for node, module in fake_quantizes(prepared):
        for known in ranges.get(_name(prepared, node.all_input_nodes[0]), ()):
            if known.spec == module.spec and known.channels == module.channels:
                module.load_state_dict(known.state_dict())


def _name(root: GraphModule, value: Node) -> str:
    """What a value is called, whatever marks or rounds it."""
    while value.op == "call_module":
        module = get_attribute(root, str(value.target))
        if not isinstance(module, QuantStub | DeQuantStub | FakeQuantize):
            break
        value = value.all_input_nodes[0]
    return f"@{value.target}" if value.op == "get_attr" else value.name
