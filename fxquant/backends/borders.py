"""The values of a model as its file takes and gives them: layout and dtype of the borders.

    x: f32[1,3,32,32]  ->  i8<0.0186,-14>[1,32,32,3]       to_file
    i8<0.1,3>[1,10]    ->  f32[1,10]                       from_file

`Lowered.graph_module` and the file itself take values in the layout and dtype that the user asked
for, the model takes float and channels first. To compare them on the same data, convert here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch.fx import Node

from fxquant.backends.base import Lowered
from fxquant.ir.types import Quantization, TensorType

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def to_file(lowered: Lowered, values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The model's inputs, in the order of the graph's, as the file takes them."""
    nodes = [node for node in lowered.graph_module.graph.nodes if node.op == "placeholder"]
    return tuple(
        _into(_permuted(value, TO_NHWC, lowered), _input_quantization(node))
        for node, value in zip(nodes, values, strict=True)
    )


def from_file(lowered: Lowered, values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The file's outputs, in the order of the graph's, as the model gives them."""
    (output,) = (node for node in lowered.graph_module.graph.nodes if node.op == "output")
    nodes = (
        output.all_input_nodes if not isinstance(output.args[0], list | tuple) else output.args[0]
    )
    return tuple(
        _permuted(_out_of(value, _output_quantization(cast(Node, node))), TO_NCHW, lowered)
        for node, value in zip(nodes, values, strict=True)
    )


def _permuted(value: torch.Tensor, order: tuple[int, ...], lowered: Lowered) -> torch.Tensor:
    if lowered.options.io_layout == "nchw" or value.dim() != len(order):
        return value
    return value.permute(order).contiguous()


def _into(value: torch.Tensor, quantization: Quantization | None) -> torch.Tensor:
    if quantization is None or not value.is_floating_point():
        return value
    scale, zero_point = quantization.scale[0], quantization.zero_point[0]
    return torch.clamp(torch.round(value / scale) + zero_point, -128, 127).to(torch.int8)


def _out_of(value: torch.Tensor, quantization: Quantization | None) -> torch.Tensor:
    if quantization is None or value.is_floating_point():
        return value
    return (value.float() - quantization.zero_point[0]) * quantization.scale[0]


def _input_quantization(node: Node) -> Quantization | None:
    """That of a raw integer input stands on the node which binds it."""
    return next((found for found in map(_quantization, (node, *node.users)) if found), None)


def _output_quantization(node: Node) -> Quantization | None:
    sources = (node, *node.all_input_nodes)
    return next((found for found in map(_quantization, sources) if found), None)


def _quantization(node: Node) -> Quantization | None:
    kind = node.meta.get("type")
    return kind.quantization if isinstance(kind, TensorType) else None
