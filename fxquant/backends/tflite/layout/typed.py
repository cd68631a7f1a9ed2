"""The type that a node's value has, and the same type with its dimensions in another order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from fxquant.errors import InvalidGraph
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.types import Quantization, TensorType

from .layouts import Layout, Shape, Shuffle, stored_shape


def type_of(node: Node) -> TensorType:
    """The type of a node's single value.

    Raises:
        InvalidGraph: it has none.
    """
    kind = node.meta.get("type", node.meta.get("val"))
    if isinstance(kind, torch.Tensor):
        return TensorType.of(kind)
    if not isinstance(kind, TensorType):
        raise InvalidGraph(
            f"%{node.name} has no type", node=format_node(node), source=source_text(node)
        )
    return kind


def shape_of(node: Node) -> Shape:
    """The shape of a node's single value."""
    return type_of(node).shape


def size_of(node: Node) -> int:
    """How many bytes a value takes."""
    kind = type_of(node)
    count = kind.dtype.itemsize
    for size in kind.shape:
        count *= max(size, 1)
    return count


def relaid(kind: TensorType, layout: Layout) -> TensorType:
    """The type of a value in that layout."""
    quantization = kind.quantization
    if quantization is not None and quantization.axis is not None:
        shuffle = layout.shuffle_of(quantization.axis)
        if shuffle is not None:
            quantization = _shuffled(quantization, shuffle)
        assert quantization.axis is not None
        quantization = replace(quantization, axis=layout.order.index(quantization.axis))
    return TensorType(stored_shape(kind.shape, layout), kind.dtype, quantization)


def _shuffled(kind: Quantization, shuffle: Shuffle) -> Quantization:
    """The scales follow the indices of their axis."""
    places = torch.arange(len(kind.scale)).reshape(shuffle.sizes).permute(shuffle.order).flatten()
    scales, zeros = kind.scale, kind.zero_point
    return replace(
        kind,
        scale=tuple(scales[place] for place in places),
        zero_point=tuple(zeros[place] for place in places),
    )


def set_type(node: Node, kind: Any) -> None:
    """Give a node its type, or the list of its types, and a value without data to match."""
    node.meta["type"] = kind
    several = isinstance(kind, list | tuple)
    node.meta["val"] = [_meta(each) for each in kind] if several else _meta(kind)


def _meta(kind: TensorType) -> torch.Tensor:
    return torch.empty(kind.shape, dtype=kind.dtype, device="meta")
