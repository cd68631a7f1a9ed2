"""Constants in the layout in which an operator wants them: permuted here, for nothing at run time.

%b = @bias: f32[8,1,1]       ->     %b = @bias_stored: f32[1,1,8]
%q = constant(@w, @scale, @zero, 0)  ->  %q = constant(@w_stored, @scale, @zero, 3)
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.edit import add_buffer, inherit, tensor_at
from fxquant.ir.types import TensorType

from .layouts import Layout, Shape, Shuffle, natural, stored_shape
from .typed import relaid, set_type, type_of


class StoredConstants:
    """Makes each constant once in each layout and shape."""

    def __init__(self, graph_module: GraphModule) -> None:
        self._root = graph_module
        self._known: dict[tuple[Node, Layout, Shape], Node] = {}

    def node(self, constant: Node, layout: Layout, shape: Shape) -> Node:
        """A node for the constant in that layout, reshaped to `shape` (leading ones may differ)."""
        kind = type_of(constant)
        if layout == natural(len(kind.shape)) and shape == kind.shape:
            return constant
        key = (constant, layout, shape)
        if key not in self._known:
            graph = self._root.graph
            with graph.inserting_before(constant.next):
                self._known[key] = self._make(constant, layout, shape)
        return self._known[key]

    def _make(self, constant: Node, layout: Layout, shape: Shape) -> Node:
        if constant.op == "get_attr":
            data = arranged(tensor_at(self._root, constant), layout).reshape(shape)
            return self._attribute(constant, data)
        read = _attribute_of(constant)
        data = arranged(tensor_at(self._root, read), layout).reshape(shape)
        names = ("data", "scale", "zero_point", "axis")
        given: dict[str, Any] = {**dict(zip(names, constant.args, strict=False)), **constant.kwargs}
        kind = relaid(type_of(constant), layout)
        axis = given.get("axis")
        if axis is not None:
            shuffle = layout.shuffle_of(axis)
            if shuffle is not None:
                for name in ("scale", "zero_point"):
                    given[name] = self._shuffled(given[name], shuffle)
            given["axis"] = layout.order.index(axis)
        given["data"] = self._attribute(read, data)
        args = tuple(given[name] for name in names if name in given)
        node = self._root.graph.create_node("call_function", constant.target, args, {})
        set_type(node, TensorType(shape, kind.dtype, kind.quantization))
        return inherit(node, constant, value=False)

    def _shuffled(self, numbers: Any, shuffle: Shuffle) -> Any:
        """The scales or zero points of an axis whose indices are shuffled."""
        stored = isinstance(numbers, Node)
        data = tensor_at(self._root, numbers) if stored else torch.as_tensor(numbers)
        if data.numel() == 1:
            return numbers
        data = arranged(data, Layout((0,), (shuffle._replace(axis=0),)))
        return self._attribute(numbers, data) if stored else tuple(data.tolist())

    def _attribute(self, origin: Node, data: torch.Tensor) -> Node:
        path = add_buffer(self._root, f"{origin.target}_stored", data.contiguous())
        node = self._root.graph.create_node("get_attr", path, (), {})
        set_type(node, TensorType.of(data))
        return inherit(node, origin, value=False)


def arranged(data: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The elements of a tensor in the order of a layout.

    >>> arranged(torch.arange(4), Layout((0,), (Shuffle(0, (2, 2), (1, 0)),))).tolist()
    [0, 2, 1, 3]
    """
    shape = tuple(data.shape)
    sizes: list[int] = []
    places: dict[int, list[int]] = {}
    for axis, size in enumerate(shape):
        shuffle = layout.shuffle_of(axis)
        factors = (size,) if shuffle is None else shuffle.sizes
        within = (0,) if shuffle is None else shuffle.order
        places[axis] = [len(sizes) + place for place in within]
        sizes.extend(factors)
    order = [place for axis in layout.order for place in places[axis]]
    permuted = data.reshape(sizes).permute(order)
    return permuted.reshape(stored_shape(shape, layout))


def _attribute_of(constant: Node) -> Node:
    read = constant.args[0] if constant.args else constant.kwargs["data"]
    assert isinstance(read, Node)
    return read
