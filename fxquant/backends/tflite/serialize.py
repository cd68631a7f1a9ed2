"""The last graph as the bytes of a .tflite file: a one-to-one walk that decides nothing.

    %x                                          tensor "x", input
    %bind = bind(%x) : i8<0.1,-3>[1,8,8,4]      the same tensor, now with scale and zero point
    %w = constant(@conv.weight, …)              tensor "conv.weight", a view of its memory
    %y = conv_2d(%bind, %w, %b) {stride_h=2}    operator CONV_2D and the tensor "conv/y"
    %t = reshape(%y, (1,-1))                    RESHAPE, with a shared tensor int32[2] for (1,-1)
    %out = unbind(%t)                           nothing: the output is the tensor "t"

What operands, options and version an operator has stands in its row of the dialect's table; how
tensors become bytes, in `tensors.py` and `flatbuffer.py`; what is refused, in `traps.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from torch.fx import GraphModule, Node

from fxquant.backends.tflite.contents import (
    OPERATOR_NAMES,
    Bytes,
    FileModel,
    FileOperator,
    Options,
    Signature,
    Subgraph,
)
from fxquant.backends.tflite.dialect.row import Call, Row
from fxquant.backends.tflite.dialect.table import ROWS
from fxquant.backends.tflite.flatbuffer import INLINE_LIMIT, to_segments
from fxquant.backends.tflite.runtime_versions import min_runtime_version
from fxquant.backends.tflite.tensors import TensorTable
from fxquant.backends.tflite.traps import faults, output_problems, problem, problems_of, refuse
from fxquant.errors import InvalidGraph, Problem
from fxquant.ir.edit import tensor_at
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_of, source_text
from fxquant.ir.state import state_of
from fxquant.ir.types import TensorType

SIGNATURE_KEY = "serving_default"
VERSION_METADATA = "min_runtime_version"
VERSION_BYTES = 16  # a fixed length, zeros behind, as other readers expect


def serialize(graph_module: GraphModule, *, inline_limit: int = INLINE_LIMIT) -> list[Bytes]:
    """The file in pieces: the head, then views of the weights' own memory.

    Args:
        graph_module: a graph in the tfl dialect.
        inline_limit: above so many bytes of constants they go behind the FlatBuffer.

    Raises:
        UnsupportedOp: forms that the runtime refuses, computes wrongly or crashes on; all of them.
        InvalidGraph: the graph is not in the tfl dialect.
    """
    return to_segments(contents_of(graph_module).model, inline_limit=inline_limit)


@dataclass(frozen=True)
class Contents:
    """The file's contents, and which tensors each node of the graph became."""

    model: FileModel
    tensors: Mapping[Node, tuple[int, ...]]


def contents_of(graph_module: GraphModule) -> Contents:
    """The file's contents as plain data, the weights not copied."""
    walk = _Walk(graph_module)
    for node in graph_module.graph.nodes:
        walk.visit(node)
    refuse(walk.problems)
    return Contents(walk.model(), walk.tensors)


def type_of(node: Node) -> TensorType:
    """The type of a node's single value."""
    (kind,) = types_of(node)
    return kind


def types_of(node: Node) -> tuple[TensorType, ...]:
    """The types of all values of a node; `getitem` nodes take theirs from the operator."""
    if node.target is operator.getitem:
        return (types_of(cast(Node, node.args[0]))[cast(int, node.args[1])],)
    kind = node.meta.get("type", node.meta.get("val"))
    if kind is None:
        raise _wrong(node, "has no type")
    several = kind if isinstance(kind, list | tuple) else (kind,)
    return tuple(each if isinstance(each, TensorType) else _type_of_value(each) for each in several)


def input_type(placeholder: Node) -> TensorType:
    """The type of an input; its `bind` says the scale and zero point."""
    bound = {type_of(user) for user in placeholder.users if _function(user) == "bind"}
    if len(bound) > 1:
        raise _wrong(placeholder, "is bound to two different quantizations")
    return next(iter(bound), None) or type_of(placeholder)


def row_of(node: Node) -> Row | None:
    """The row of the operator that a node calls; None for `constant`, `bind`, `getitem`, …"""
    return ROWS.get(_function(node))


def call_of(node: Node, row: Row) -> Call:
    """A node as a use of its operator."""
    function = cast(Any, node.target)
    return row.call(function, node.args, node.kwargs, type_of, types_of(node))


@dataclass
class _Walk:
    """The file as far as it is made."""

    graph_module: GraphModule
    table: TensorTable = field(default_factory=TensorTable)
    tensors: dict[Node, tuple[int, ...]] = field(default_factory=dict)
    operators: list[FileOperator] = field(default_factory=list)
    inputs: list[tuple[str, int]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def visit(self, node: Node) -> None:
        """Add what one node stands for."""
        row = row_of(node)
        if row is not None:
            self.operator(node, row)
        elif node.op == "placeholder":
            self.placeholder(node)
        elif node.op == "output":
            self.output(node)
        elif node.op == "call_function" and node.target is operator.getitem:
            source, position = cast(tuple[Node, int], node.args)
            self.tensors[node] = (self.tensors[source][position],)
        elif node.op == "call_function" and _function(node) in _SILENT:
            self.silent(node)
        elif node.op != "get_attr":
            raise _wrong(node, "is not an operator of the tfl dialect")

    def operator(self, node: Node, row: Row) -> None:
        """One operator and the tensors of its results."""
        call = call_of(node, row)
        found = problems_of(node, call)
        self.problems.extend(found)
        name = _name(node)
        kinds = call.results
        names = [name] if len(kinds) == 1 else [f"{name}/{number}" for number in range(len(kinds))]
        kept = self.variables(call)
        outputs = tuple(
            kept[n] if n in kept else self.table.activation(names[n], kind)
            for n, kind in enumerate(kinds)
        )
        self.tensors[node] = outputs
        if found:
            return  # the file is refused anyway; options of a bad form may not even be writable
        inputs = tuple(self.operand(argument) for argument in call.inputs())
        options = None
        if row.table is not None:
            fields = zip(
                (option.name for option in row.options), call.fields().values(), strict=True
            )
            options = Options(row.table, dict(fields))
        for name in row.variables:
            del self.tensors[call.arguments[name]]  # it holds something else from here on
        made = tuple(index for n, index in enumerate(outputs) if n not in kept)
        read = () if row.intermediates is None else row.intermediates(call)
        scales = tuple(self.table.activation(f"{names[0]}/scale", kind) for kind in read)
        self.operators.append(
            FileOperator(row.code, call.version(), inputs, made, options, intermediates=scales)
        )

    def variables(self, call: Call) -> dict[int | None, int]:
        """The tensors of operands that the kernel overwrites, by the result that they become."""
        found: dict[int | None, int] = {}
        for name, result in call.row.variables.items():
            node = call.arguments[name]
            if row_of(node) is None or len(node.users) > 1:
                raise _wrong(node, f"is overwritten as {name}: it must be computed for it alone")
            found[result] = self.tensor(node)
            self.table.make_variable(found[result])
        return found

    def operand(self, argument: object) -> int:
        """The tensor of an operand; -1 for one left out."""
        if argument is None:
            return -1
        if isinstance(argument, Node):
            return self.tensor(argument)
        return self.table.literal(np.asarray(argument))

    def tensor(self, node: Node) -> int:
        """The tensor of a node; that of a weight is made at its first use."""
        if node.op == "get_attr" and node not in self.tensors:
            self.tensors[node] = (self.constant(node, TensorType.of(self._data(node))),)
        return self.tensors[node][0]

    def constant(self, attribute: Node, kind: TensorType) -> int:
        """The tensor of stored values."""
        return self.table.constant(str(attribute.target), self._data(attribute), kind)

    def _data(self, attribute: Node) -> Any:
        return tensor_at(self.graph_module, attribute)

    def silent(self, node: Node) -> None:
        """`constant`, `bind` and `unbind` say only what a tensor means."""
        source = cast(Node, node.args[0])
        self.problems.extend(
            problem(node, text) for kind in types_of(node) for text in faults(kind)
        )
        if source.op == "get_attr":
            self.tensors[node] = (self.constant(source, type_of(node)),)
            return
        if _function(node) == "bind" and source.op != "placeholder":
            raise _wrong(node, "binds a value that is not an input")
        self.tensors[node] = (self.tensor(source),)

    def placeholder(self, node: Node) -> None:
        """An input of the file; `bind` nodes say its scale and zero point."""
        kind = input_type(node)
        index = self.table.activation(str(node.target), kind)
        self.tensors[node] = (index,)
        self.inputs.append((str(node.target), index))

    def output(self, node: Node) -> None:
        """The outputs of the file, in the user's order."""
        results = node.args[0]
        several = results if isinstance(results, list | tuple) else (results,)
        nodes = [each for each in several if isinstance(each, Node)]
        self.outputs = [self.tensor(each) for each in nodes]
        for each in nodes:
            self.problems.extend(output_problems(each, type_of))

    def model(self) -> FileModel:
        """The file's contents."""
        release = min_runtime_version(
            (OPERATOR_NAMES[op.code], op.version) for op in self.operators
        )
        names = output_names(self.graph_module, len(self.outputs))
        inputs = tuple(index for _, index in self.inputs)
        return FileModel(
            subgraphs=(
                Subgraph(
                    "main",
                    tuple(self.table.tensors),
                    tuple(self.operators),
                    inputs,
                    tuple(self.outputs),
                ),
            ),
            buffers=tuple(self.table.buffers),
            signatures=(
                Signature(
                    SIGNATURE_KEY,
                    tuple(self.inputs),
                    tuple(zip(names, self.outputs, strict=True)),
                ),
            ),
            description=f"fxquant {_version()}",
            metadata={VERSION_METADATA: release.encode().ljust(VERSION_BYTES, b"\0")},
        )


_DIALECT = Row.__module__.rpartition(".")[0]
_SILENT = ("constant", "bind", "unbind")  # these say what a tensor means, and compute nothing


def output_names(graph_module: GraphModule, count: int) -> tuple[str, ...]:
    """The names of the outputs: the user's own where the result has keys, else `output_0`, …"""
    known = getattr(state_of(graph_module).signature, "output_names", None)
    if known is not None and len(known) == count and len(set(known)) == count:
        return tuple(map(str, known))
    return ("output",) if count == 1 else tuple(f"output_{number}" for number in range(count))


def _function(node: Node) -> str:
    """The name of the dialect's function that a node calls; torch has functions of equal names."""
    module = getattr(node.target, "__module__", None) or ""
    return getattr(node.target, "__name__", "") if module.startswith(_DIALECT) else ""


def _name(node: Node) -> str:
    """A readable name: the module path of the user's line, then the node's own name."""
    source = source_of(node)
    return f"{source.module}/{node.name}" if source is not None and source.module else node.name


def _type_of_value(value: Any) -> TensorType:
    return TensorType(
        tuple(size if isinstance(size, int) else -1 for size in value.shape), value.dtype
    )


def _wrong(node: Node, what: str) -> InvalidGraph:
    return InvalidGraph(
        f"%{node.name} {what}",
        node=format_node(node) if node.op != "placeholder" else f"%{node.name}",
        source=source_text(node),
        fix="serialize takes the graph that lower(…, 'tflite') makes",
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fxquant")
    except PackageNotFoundError:
        return "from source"
