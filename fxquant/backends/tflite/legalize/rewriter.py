"""What a rule works with: it emits operators of the dialect and knows every value's type.

r.emit(tfl.leaky_relu, x, alpha=0.1, out=r.out)      one operator, its type inferred
r.nhwc(x), r.nchw(y)                                 explicit transposes, which layout removes
r.constant(tensor, "offset")                         a constant, in the graph once it is read
r.out                                                the result's quantization; None for float
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.edit import add_buffer, inherit
from fxquant.ir.types import TensorType

from .border_grids import at_border
from .grids import KEEPS_SCALE, finest, qtype_of, quantize_constant, with_quantization
from .inference import broadcast_shapes, dtype_called, infer
from .stored_form import stored_form
from .values import Constant, Value

Order = tuple[int, ...]


class Unsupported(Exception):
    """A rule cannot write this form; the message says why."""


class NoIntegerForm(Exception):
    """The integer form does not exist, or a float island is better: the rule is run in float.

    The message says why there is none; it is read where `integer_only` asks for one.
    """


class Rewriter:
    """Builds the new graph, one core node after the other.

    Attributes:
        graph: the graph that is being built.
        root: the module that holds its constants.
        origin: the core node that is being rewritten.
        core: the same, or the part of it that its decomposition has come to.
        out: the quantization of its result; None where the result is float or plain integers.
        integer_only: whether an integer kernel is to be preferred to a float island.
        bfloat16_storage: dtype in which constants rounded to bfloat16 are stored.
    """

    def __init__(
        self,
        graph: Graph,
        root: nn.Module,
        *,
        integer_only: bool = False,
        bfloat16_storage: str = "float32",
    ) -> None:
        self.graph = graph
        self.root = root
        self.integer_only = integer_only
        self.bfloat16_storage = bfloat16_storage
        self.origin: Node | None = None
        self.core: Node | None = None
        self.out: QType | None = None
        self._nodes: dict[int, tuple[Constant, Node]] = {}
        self._memo: dict[tuple[object, ...], Node] = {}

    # -- types -------------------------------------------------------------------------------

    def type(self, value: Value) -> TensorType:
        """The type of a value."""
        if isinstance(value, Constant):
            return value.type
        kind = value.meta["type"]
        assert isinstance(kind, TensorType)
        return kind

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value."""
        return self.type(value).shape

    def dtype(self, value: Value) -> torch.dtype:
        """The dtype of a value as it is stored."""
        return self.type(value).dtype

    def is_quantized(self, value: Value) -> bool:
        """Whether a value's integers stand for reals."""
        return self.type(value).quantization is not None

    def qtype(self, value: Value) -> QType | None:
        """A value's quantization in the form of `out=`; None for what has none."""
        return qtype_of(self.type(value))

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape that torch gives the result."""
        assert self.core is not None
        return tuple(self.core.meta["val"].shape)

    @property
    def result_dtype(self) -> torch.dtype:
        """The dtype that torch gives the result."""
        assert self.core is not None
        dtype = self.core.meta["val"].dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    # -- operators ---------------------------------------------------------------------------

    def emit(
        self, function: Callable[..., Any], *values: Any, out: QType | None = None, **options: Any
    ) -> Node:
        """One operator with one result."""
        node, types = self._call(function, values, out, options)
        return self._typed(node, types[0])

    def emit_several(
        self, function: Callable[..., Any], *values: Any, **options: Any
    ) -> tuple[Node, ...]:
        """One operator with several results, each a `getitem` node; they keep the scale."""
        node, types = self._call(function, values, None, options)
        node.meta["type"] = types
        node.meta["val"] = [_meta(kind) for kind in types]
        return tuple(self._item(node, number, kind) for number, kind in enumerate(types))

    def _call(
        self,
        function: Callable[..., Any],
        values: tuple[Any, ...],
        out: QType | None,
        options: dict[str, Any],
    ) -> tuple[Node, list[TensorType]]:
        nodes = tuple(self._operand(value) for value in values)
        options = {name: self._operand(value) for name, value in options.items()}
        flat = [node for node in _flat((*nodes, *options.values())) if isinstance(node, Node)]
        operands = [self.type(node) for node in flat]
        name = function.__name__
        types = infer(name, operands, options)
        if out is not None:
            types = [with_quantization(kind, out) for kind in types]
        elif name in KEEPS_SCALE:
            kept = operands[KEEPS_SCALE[name]].quantization
            types = [
                TensorType(kind.shape, kind.dtype, kept)
                if kind.dtype == operands[KEEPS_SCALE[name]].dtype
                else kind
                for kind in types
            ]
        if name == "reshape":  # as the contract of the dialect spells it
            nodes, options = (*nodes, options["shape"]), {}
        usual = _defaults(function)
        keywords = {key: value for key, value in options.items() if usual.get(key, _NONE) != value}
        if out is not None:
            keywords["out"] = out
        return self._node(function, nodes, keywords), types

    def _node(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Node:
        name = self.origin.name if self.origin is not None else None
        if name is not None and target in SUFFIXES:
            name += SUFFIXES[target]
        node = self.graph.create_node("call_function", target, args, kwargs, name=name)
        if self.origin is not None:
            inherit(node, self.origin, value=False)
        return node

    def _typed(self, node: Node, kind: TensorType) -> Node:
        node.meta["type"] = kind
        node.meta["val"] = _meta(kind)
        return node

    def _item(self, node: Node, number: int, kind: TensorType) -> Node:
        return self._typed(self._node(operator.getitem, (node, number), {}), kind)

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Constant):
            return self.node(value)
        if isinstance(value, list) or (isinstance(value, tuple) and _holds_values(value)):
            return [self._operand(item) for item in value]
        return value

    # -- constants ---------------------------------------------------------------------------

    def constant(
        self, data: torch.Tensor | float | Sequence[float], name: str = "constant"
    ) -> Constant:
        """A constant tensor; Python numbers become float32."""
        if not isinstance(data, torch.Tensor):
            data = torch.tensor(data, dtype=torch.float32)
        prefix = self.origin.name if self.origin is not None else "constants"
        return Constant(f"{prefix}.{name}", data)

    def node(self, value: Value) -> Node:
        """The node of a value; a constant is put into the graph at its first use."""
        if isinstance(value, Node):
            return value
        known = self._nodes.get(id(value))
        if known is None:
            known = self._nodes[id(value)] = (value, self._materialize(value))
        return known[1]

    def _materialize(self, value: Constant) -> Node:
        if value.narrow is not None:
            return self._widened(self._materialize(value.narrow), value.type)
        data = value.data.detach()
        kind = value.type
        path = add_buffer(self.root, value.name, data)
        read = self.graph.create_node("get_attr", path, (), {})
        if value.quantization is None:
            return self._typed(read, kind)
        self._typed(read, TensorType(kind.shape, kind.dtype))
        kwargs: dict[str, Any] = {}
        if value.storage is not None:
            kwargs["storage"] = str(value.storage).removeprefix("torch.")
        node = self.graph.create_node(
            "call_function",
            tfl.constant,
            (read, *self._scales(value)),
            kwargs,
            name=f"{read.name}_q",
        )
        return self._typed(node, kind)

    def _widened(self, narrow: Node, kind: TensorType) -> Node:
        """Stored integers or 16-bit floats as the floats that they stand for."""
        if self.type(narrow).dtype == torch.bfloat16:  # which DEQUANTIZE does not know
            return self.emit(tfl.cast, narrow, out_data_type="float32")
        return self._typed(self._node(tfl.dequantize, (narrow,), {}), kind)

    def _scales(self, value: Constant) -> tuple[Any, ...]:
        kind = value.quantization
        assert kind is not None
        if kind.axis is None:
            return (kind.scale[0], kind.zero_point[0])
        scale = torch.tensor(kind.scale, dtype=torch.float32)
        zero_point = torch.tensor(kind.zero_point, dtype=torch.int64)
        tensors = (("scale", scale), ("zero_point", zero_point))
        found = []
        for name, tensor in tensors:
            path = add_buffer(self.root, f"{value.name}_{name}", tensor)
            read = self.graph.create_node("get_attr", path, (), {})
            found.append(self._typed(read, TensorType.of(tensor)))
        return (*found, kind.axis)

    def scalar(self, number: complex, dtype: torch.dtype = torch.float32) -> Constant:
        """A constant without dimensions."""
        return Constant(
            f"{self.origin.name if self.origin else 'constants'}.{_word(number)}",
            torch.tensor(number, dtype=dtype),
        )

    def operands(self, *values: Value | complex, dtype: torch.dtype | None = None) -> list[Value]:
        """Operands of an elementwise operator: all integers on grids, or all of one dtype.

        Args:
            values: values and Python numbers.
            dtype: what plain operands are cast to; the result's dtype if not given.
        """
        if self.out is None:
            wanted = self.result_dtype if dtype is None else dtype
            return [self._plain(value, wanted) for value in values]
        grid = dtype_called(self.out.dtype)
        return [self._on_grid(value, grid) for value in values]

    def _plain(self, value: Value | complex, dtype: torch.dtype) -> Value:
        if isinstance(value, Node | Constant):
            return self.cast(self.float(value), dtype)
        return self.scalar(value, dtype)

    def _on_grid(self, value: Value | complex, dtype: torch.dtype) -> Value:
        if not isinstance(value, Node | Constant):
            value = self.scalar(value)
        return self.quantized_constant(value, dtype) if isinstance(value, Constant) else value

    # -- shapes and layout -------------------------------------------------------------------

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """TRANSPOSE; constants are permuted at once, and a transpose of one is one or none."""
        order = tuple(axis % len(order) for axis in order)
        if order == tuple(range(len(order))):
            return value
        if isinstance(value, Constant):
            return value.permute(order)
        if value.target is tfl.transpose:
            inner: Order = value.kwargs["perm"]  # type: ignore[assignment]
            source = value.args[0]
            assert isinstance(source, Node)
            return self.transpose(source, tuple(inner[axis] for axis in order))
        return self._once(
            ("transpose", value, order), lambda: self.emit(tfl.transpose, value, perm=order)
        )

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """RESHAPE; none where the shape stays, one instead of two."""
        shape = tuple(int(size) for size in shape)
        if shape == self.shape(value):
            return value
        if isinstance(value, Constant):
            return value.reshape(shape)
        if value.target is tfl.reshape and isinstance(value.args[0], Node):
            return self.reshape(value.args[0], shape)
        return self._once(
            ("reshape", value, shape), lambda: self.emit(tfl.reshape, value, shape=shape)
        )

    def nhwc(self, value: Value) -> Value:
        """Channels moved from dimension 1 to the end."""
        rank = len(self.shape(value))
        return self.transpose(value, (0, *range(2, rank), 1))

    def nchw(self, value: Value) -> Value:
        """Channels moved from the end to dimension 1."""
        rank = len(self.shape(value))
        return self.transpose(value, (0, rank - 1, *range(1, rank - 1)))

    def move_last(self, value: Value, axis: int) -> tuple[Value, Callable[[Value], Value]]:
        """The value with `axis` last, and the function that moves it back."""
        rank = len(self.shape(value))
        axis %= rank
        order = (*(n for n in range(rank) if n != axis), axis)
        back = tuple(order.index(n) for n in range(rank))
        return self.transpose(value, order), lambda result: self.transpose(result, back)

    def broadcast(self, value: Value, shape: Sequence[int]) -> Value:
        """BROADCAST_TO, none where the shape is that already."""
        shape = tuple(shape)
        if shape == self.shape(value):
            return value
        if isinstance(value, Constant):
            return Constant(value.name, value.data.expand(shape), value.quantization)
        return self.emit(tfl.broadcast_to, value, shape=shape)

    def with_rank(self, value: Value, rank: int) -> Value:
        """With dimensions of one in front, up to `rank`."""
        shape = self.shape(value)
        return self.reshape(value, (1,) * (rank - len(shape)) + shape)

    def broadcast_shape(self, *values: Value) -> tuple[int, ...]:
        """The shape that the values broadcast to."""
        return broadcast_shapes([self.shape(value) for value in values])

    def elements(self, value: Value) -> int:
        """How many elements a value has."""
        return math.prod(self.shape(value))

    def slice(self, value: Value, axis: int, start: int, size: int) -> Value:
        """A range along one axis: SLICE with explicit sizes, which the delegate takes."""
        shape = self.shape(value)
        axis %= len(shape)
        if (start, size) == (0, shape[axis]):
            return value
        if isinstance(value, Constant):
            return value.slice(axis, start, size)
        begin = tuple(start if n == axis else 0 for n in range(len(shape)))
        sizes = tuple(size if n == axis else extent for n, extent in enumerate(shape))
        return self.emit(tfl.slice, value, begin=begin, size=sizes)

    # -- dtypes and quantization ---------------------------------------------------------------

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """CAST, none where the dtype is that already."""
        if self.dtype(value) == dtype:
            return value
        if isinstance(value, Constant):
            narrow = stored_form(value, self.bfloat16_storage) if dtype == torch.float32 else None
            return Constant(value.name, value.data.to(dtype), narrow=narrow)
        name = str(dtype).removeprefix("torch.")
        return self._once(
            ("cast", value, dtype), lambda: self.emit(tfl.cast, value, out_data_type=name)
        )

    def float(self, value: Value) -> Value:
        """A value's reals: DEQUANTIZE for quantized integers, constants dequantized at once."""
        if not self.is_quantized(value):
            return value
        if isinstance(value, Constant):
            return value.dequantize()
        return self._once(("dequantize", value), lambda: self._dequantize(value))

    def _dequantize(self, value: Value) -> Node:
        kind = self.type(value)
        node = self._node(tfl.dequantize, (self.node(value),), {})
        return self._typed(node, TensorType(kind.shape, torch.float32))

    def quantize(self, value: Value, out: QType) -> Value:
        """A value on the grid of `out`: QUANTIZE, or nothing where it is on it."""
        if self.qtype(value) == out:
            return value
        if isinstance(value, Constant):
            return quantize_constant(value.dequantize(), out)
        if out.dtype == "uint8" and self.dtype(value) == torch.int16:
            value = self.quantize(value, at_border(out, "int8"))  # there is no QUANTIZE at once
        return self._once(("quantize", value, out), lambda: self._quantize(value, out))

    def _quantize(self, value: Value, out: QType) -> Node:
        kind = TensorType(self.shape(value), torch.float32)
        node = self._node(tfl.quantize, (self.node(value),), {"out": out})
        return self._typed(node, with_quantization(kind, out))

    def bind(self, value: Node, out: QType) -> Node:
        """An input of integers with the meaning of `out`."""
        kind = with_quantization(self.type(value), out)
        return self._typed(self._node(tfl.bind, (value,), {"out": out}), kind)

    def unbind(self, value: Value) -> Node:
        """The raw integers of a result."""
        kind = self.type(value)
        node = self._node(tfl.unbind, (self.node(value),), {})
        return self._typed(node, TensorType(kind.shape, kind.dtype))

    def quantized_constant(self, value: Constant, dtype: torch.dtype = torch.int8) -> Constant:
        """A float constant as integers on the finest grid that holds it."""
        if value.quantization is not None:
            return value
        return quantize_constant(value, finest(value.data, dtype))

    def _once(self, key: tuple[object, ...], make: Callable[[], Node]) -> Node:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]


SUFFIXES = {
    tfl.transpose: "_t",
    tfl.pad: "_pad",
    operator.getitem: "_part",
    tfl.dequantize: "_real",
}


def _word(number: complex) -> str:
    """A name that says the number: `n0_5`, `minus_3`.

    >>> _word(-0.5)
    'minus_0_5'
    """
    text = f"{number:g}" if not isinstance(number, bool) else str(number).lower()
    words = text.replace("-", "minus_").replace(".", "_").replace("+", "")
    return f"n{words}" if words[:1].isdigit() else words


def _holds_values(items: tuple[Any, ...]) -> bool:
    return any(isinstance(item, Node | Constant) for item in items)


_NONE = object()


@functools.cache
def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def _flat(values: Any) -> list[Any]:
    if isinstance(values, list | tuple):
        return [part for value in values for part in _flat(value)]
    return [values]


def _meta(kind: TensorType) -> torch.Tensor:
    return torch.empty(kind.shape, dtype=kind.dtype, device="meta")
