"""What a rule works with: it emits operators of the dialect, whose types follow by running them.

r.emit(ops.leaky_relu, x, alpha=0.1)      one operator
r.operands(x, 2)                          cast to the dtype of the result, as torch promotes
r.constant(tensor, "offset")              a constant, in the graph once it is read
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from fxquant.backends.lowering.constants import Constant, Value
from fxquant.backends.onnx.dialect import elementwise, movement, quantization
from fxquant.ir.edit import add_buffer, inherit

Number = float | int | bool
SIZES = "sizes"  # in meta: a vector computed from shapes, whose numbers stand in meta["val"]


class Unsupported(Exception):
    """A rule cannot write this form; the message says why."""


class Grid(NamedTuple):
    """How a quantized value is stored."""

    scale: float
    zero_point: int
    dtype: str = "int8"


class Rewriter:
    """Builds the new graph, one core node after the other.

    Attributes:
        graph: the graph that is being built.
        root: the module that holds its constants.
        opset: the version of the operators that may be used.
        float_bias: biases of quantized layers stay float.
        origin: the core node that is being rewritten.
        core: the same, or the part of it that its decomposition has come to.
        grids: the grids of values that come from a pair of quantize and dequantize.
    """

    def __init__(self, graph: Graph, root: nn.Module, opset: int, float_bias: bool) -> None:
        self.graph, self.root = graph, root
        self.opset, self.float_bias = opset, float_bias
        self.origin: Node | None = None
        self.core: Node | None = None
        self.grids: dict[Node, Grid] = {}
        self._nodes: dict[int, tuple[Constant, Node]] = {}
        self._label: str | None = None

    # -- types -------------------------------------------------------------------------------

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value."""
        found = value.data if isinstance(value, Constant) else value.meta["val"]
        return tuple(found.shape)

    def rank(self, value: Value) -> int:
        """How many dimensions a value has."""
        return len(self.shape(value))

    def dtype(self, value: Value) -> torch.dtype:
        """The dtype of a value; reals for a constant that is stored as integers."""
        if isinstance(value, Constant):
            return value.data.dtype if value.quantization is None else torch.float32
        dtype: torch.dtype = value.meta["val"].dtype
        return dtype

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape that torch gives the result."""
        assert self.core is not None
        return tuple(self.core.meta["val"].shape)

    @property
    def result_dtype(self) -> torch.dtype:
        """The dtype that torch gives the result."""
        assert self.core is not None
        dtype: torch.dtype = self.core.meta["val"].dtype
        return dtype

    # -- operators ---------------------------------------------------------------------------

    def emit(self, function: Callable[..., Any], *operands: Any, **options: Any) -> Node:
        """One operator with one result."""
        nodes = tuple(self._operand(each) for each in operands)
        usual = function.option_defaults  # type: ignore[attr-defined]
        given = {k: v for k, v in options.items() if k not in usual or usual[k] != v}
        node = self._node(function, nodes, given)
        node.meta["val"] = function(*map_arg(nodes, _stand_in), **given)
        read = node.all_input_nodes
        if function is movement.shape or (read and all(map(is_sizes, read))):
            node.meta[SIZES] = True
        return node

    def emit_several(
        self, function: Callable[..., Any], *operands: Any, **options: Any
    ) -> tuple[Node, ...]:
        """One operator with several results, each a `getitem` node."""
        node = self.emit(function, *operands, **options)
        parts = []
        for number, value in enumerate(node.meta["val"]):
            part = self._node(operator.getitem, (node, number), {})
            part.meta["val"] = value
            parts.append(part)
        return tuple(parts)

    def _node(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Node:
        name = self._label or (None if self.origin is None else self.origin.name)
        node = self.graph.create_node("call_function", target, args, kwargs, name=name)
        return node if self.origin is None else inherit(node, self.origin, value=False)

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Constant):
            return self.node(value)
        if isinstance(value, list):
            return [self._operand(item) for item in value]
        return value

    # -- constants ---------------------------------------------------------------------------

    def constant(self, data: torch.Tensor | Number | Sequence[Number], name: str) -> Constant:
        """A constant of the node that is being rewritten; Python numbers become float32."""
        if not isinstance(data, torch.Tensor):
            data = torch.tensor(data, dtype=torch.float32)
        prefix = "constants" if self.origin is None else self.origin.name
        return Constant(f"{prefix}.{name}", data)

    def index(self, number: int, name: str = "index") -> Constant:
        """A constant int64 without dimensions."""
        return self.constant(torch.tensor(number, dtype=torch.int64), name)

    def node(self, value: Value) -> Node:
        """The node of a value; a constant is put into the graph at its first use."""
        if isinstance(value, Node):
            return value
        known = self._nodes.get(id(value))
        if known is None:
            known = self._nodes[id(value)] = (value, self._labeled(value))
        return known[1]

    def _labeled(self, value: Constant) -> Node:
        """The nodes of a constant, named after it."""
        self._label = value.name.replace(".", "_")
        try:
            return self._materialize(value)
        finally:
            self._label = None

    def _stored(self, name: str, data: torch.Tensor) -> Node:
        data = data.detach()
        node = self.graph.create_node("get_attr", add_buffer(self.root, name, data), (), {})
        node.meta["val"] = _meta(data)
        return node

    def _materialize(self, value: Constant) -> Node:
        stored = self._stored(value.name, value.data)
        kind = value.quantization
        if kind is None:
            return stored
        integer = value.data.dtype
        if kind.axis is None:
            return self.emit(
                quantization.dequantize_linear, stored, kind.scale[0], kind.zero_point[0]
            )
        scale = self._stored(f"{value.name}_scale", torch.tensor(kind.scale))
        zero = torch.tensor(kind.zero_point, dtype=integer)
        return self.emit(
            quantization.dequantize_linear,
            stored,
            scale,
            self._stored(f"{value.name}_zero_point", zero),
            axis=kind.axis,
        )

    # -- sizes that are chosen when the file runs ------------------------------------------------

    def size_of(self, value: Value, axis: int) -> Node:
        """The size of a dimension, a vector of one int64 that the file computes."""
        sizes = self.emit(movement.shape, value)
        return self.emit(movement.slice, sizes, (axis,), (axis + 1,), (0,), (1,))

    def sizes(self, parts: Sequence[Node | int]) -> Node:
        """A vector of sizes, known and computed ones."""
        vectors: list[Node] = []
        known: list[int] = []
        for part in (*parts, None):
            if isinstance(part, int):
                known.append(part)
                continue
            if known:
                vectors.append(self._known(known))
                known = []
            if part is not None:
                vectors.append(part)
        return vectors[0] if len(vectors) == 1 else self.emit(movement.concat, vectors, axis=0)

    def _known(self, sizes: Sequence[int]) -> Node:
        data = torch.tensor(sizes, dtype=torch.int64)
        node = self.node(self.constant(data, "sizes"))
        node.meta["val"], node.meta[SIZES] = data, True
        return node

    # -- dtypes ------------------------------------------------------------------------------

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """Cast, none where the dtype is that already."""
        if self.dtype(value) == dtype:
            return value
        if isinstance(value, Constant) and value.quantization is None:
            return Constant(value.name, value.data.to(dtype))
        return self.emit(elementwise.cast, value, to=str(dtype).removeprefix("torch."))

    def operands(
        self, *values: Value | Number, dtype: torch.dtype | None = None
    ) -> list[Value | Number]:
        """Operands of an elementwise operator, all of one dtype: the result's if not given."""
        wanted = self.result_dtype if dtype is None else dtype
        return [self._as(value, wanted) for value in values]

    def _as(self, value: Value | Number, dtype: torch.dtype) -> Value | Number:
        if isinstance(value, Node | Constant):
            return self.cast(value, dtype)
        if dtype.is_floating_point:
            return float(value)
        return bool(value) if dtype == torch.bool else int(value)

    def promoted(self, *values: Value | Number) -> torch.dtype:
        """The dtype that torch computes in."""
        stand_ins = [
            torch.empty(self.shape(v), dtype=self.dtype(v), device="meta")
            if isinstance(v, Node | Constant)
            else v
            for v in values
        ]
        found = stand_ins[0]
        for other in stand_ins[1:]:
            dtype = torch.result_type(found, other)
            dims = max(x.dim() for x in (found, other) if isinstance(x, torch.Tensor))
            found = torch.empty([1] * dims, dtype=dtype, device="meta")
        assert isinstance(found, torch.Tensor)
        return found.dtype

    # -- quantization ------------------------------------------------------------------------

    def on_grid(self, value: Value, grid: Grid) -> Node:
        """The value through a pair of quantize and dequantize."""
        integers = self.emit(
            quantization.quantize_linear, value, grid.scale, grid.zero_point, dtype=grid.dtype
        )
        node = self.emit(quantization.dequantize_linear, integers, grid.scale, grid.zero_point)
        self.grids[node] = grid
        return node

    # -- shapes ------------------------------------------------------------------------------

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Reshape, none where the shape stays."""
        shape = tuple(int(size) for size in shape)
        if shape == self.shape(value):
            return value
        if isinstance(value, Constant) and value.quantization is None:
            return value.reshape(shape)
        return self.emit(movement.reshape, value, shape)

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Transpose; constants are permuted at once."""
        order = tuple(axis % len(order) for axis in order)
        if order == tuple(range(len(order))):
            return value
        if isinstance(value, Constant):
            permuted = value.permute(order)
            return Constant(permuted.name, permuted.data.contiguous(), permuted.quantization)
        return self.emit(movement.transpose, value, perm=order)

    def swap_last(self, value: Value) -> Value:
        """The last two dimensions exchanged."""
        rank = self.rank(value)
        return self.transpose(value, (*range(rank - 2), rank - 1, rank - 2))


def is_sizes(node: Node) -> bool:
    """Whether a value is computed from shapes only, so that its numbers are known."""
    return bool(node.meta.get(SIZES))


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _stand_in(node: Node) -> torch.Tensor:
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor)
    if is_sizes(node):
        return value
    return value if value.device.type == "meta" else _meta(value)
