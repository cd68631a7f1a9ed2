"""The outputs of a file as the model gives them: float, and channels first.

    i8[1,10] of scale 0.1, zero point 3   ->  f32[1,10]
    f32[1,32,32,8], channels last         ->  f32[1,8,32,32]

The counterpart of `sample_inputs.py`. So the model, the last graph and the file can be compared on
the same data, whatever stands at the file's borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fxquant.backends.base import Lowered
from fxquant.backends.tflite.sample_inputs import flat_inputs
from fxquant.ir.types import Quantization, TensorType

IMAGE_RANKS = (4, 5)  # those that `io_layout="nhwc"` turns


def run_graph(lowered: Lowered, sample: Any) -> list[Tensor]:
    """The last graph's outputs for a sample of the model's data, in a flat list."""
    inputs = flat_inputs(lowered.graph_module, sample)
    with torch.no_grad():
        outputs = Interpreter(lowered.graph_module).run(*inputs, enable_io_processing=False)
    return model_outputs(lowered, outputs if isinstance(outputs, list | tuple) else [outputs])


def model_outputs(lowered: Lowered, outputs: Sequence[Tensor]) -> list[Tensor]:
    """The file's outputs, in the order of the graph's, as the model gives them."""
    nodes = _output_nodes(lowered.graph_module)
    values = [_real(value, _meaning(node)) for node, value in zip(nodes, outputs, strict=True)]
    if lowered.options.io_layout == "nchw":
        return values
    return [each.movedim(-1, 1) if each.dim() in IMAGE_RANKS else each for each in values]


def _output_nodes(graph_module: GraphModule) -> Sequence[Node]:
    """The nodes whose values are returned."""
    (output,) = graph_module.graph.find_nodes(op="output")
    returned = output.args[0]
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def _real(value: Tensor, quantization: Quantization | None) -> Tensor:
    if quantization is None or value.is_floating_point():
        return value
    return (value.float() - quantization.zero_point[0]) * quantization.scale[0]


def _meaning(node: Node) -> Quantization | None:
    """What the integers stand for: it stands on the value before `unbind` took it off."""
    kinds = (each.meta.get("type") for each in (node, *node.all_input_nodes))
    known = (kind.quantization for kind in kinds if isinstance(kind, TensorType))
    return next((quantization for quantization in known if quantization), None)
