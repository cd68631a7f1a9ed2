"""A graph in the dialect as a file: one node each, constants as initializers.

    %y = clip(%x, -1.0, 1.0)   ->   y = Clip(x, y_low, y_high)

Numbers and tuples among the inputs become initializers. Weights of more than `LIMIT` bytes do not
fit into one protobuf: they follow it as pieces of their own, which `save` writes to a file beside
it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from fxquant.errors import InvalidGraph, MissingDependency
from fxquant.ir.edit import tensor_at
from fxquant.ir.printer import format_node
from fxquant.ir.state import state_of

from .dialect import Operator, operator_of
from .options import IR_VERSIONS

if TYPE_CHECKING:
    import onnx

LIMIT = 2**31 - 2**24  # protobuf's 2 GB, less room for the graph
ALIGNMENT = 4096
PLACE = "weights.data"
Segment = bytes | memoryview

TYPES: dict[torch.dtype, str] = {
    torch.float32: "FLOAT",
    torch.float64: "DOUBLE",
    torch.float16: "FLOAT16",
    torch.bfloat16: "BFLOAT16",
    torch.int8: "INT8",
    torch.uint8: "UINT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.bool: "BOOL",
}


def require_onnx() -> None:
    """Say what to install where the package is missing.

    Raises:
        MissingDependency: onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        fix = "pip install 'fxquant[onnx]'"
        raise MissingDependency("writing ONNX files needs the package onnx", fix=fix) from error


def serialize(
    graph_module: GraphModule, opset: int, *, external: bool | None = None
) -> list[Segment]:
    """The file in pieces: the protobuf, then the weights where they are stored outside of it.

    Args:
        graph_module: a graph in the dialect.
        opset: the version of the operators.
        external: store the weights outside; None does so where the protobuf would be too large.
    """
    require_onnx()
    return _Writer(graph_module, opset, external).run()


def value_names(graph_module: GraphModule) -> dict[Node, str]:
    """What each value is called in the file: inputs and outputs as the user calls them."""
    nodes = list(graph_module.graph.nodes)
    names = {node: node.name for node in nodes if node.op != "output"}
    names.update({node: str(node.target) for node in nodes if node.op == "placeholder"})
    returned = _returned(graph_module)
    signature = state_of(graph_module).signature
    wanted = list(getattr(signature, "output_names", ()))
    if len(wanted) != len(returned):
        wanted = [f"output_{n}" for n in range(len(returned))]
    taken = {names[n] for n in nodes if n.op == "placeholder"}
    outputs = {node: _free(name, taken) for node, name in zip(returned, wanted, strict=True)}
    for node, name in names.items():
        if node.op != "placeholder" and node not in outputs:
            names[node] = _free(name, taken)
    return {**names, **outputs}


def _free(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def _returned(graph_module: GraphModule) -> list[Node]:
    (output,) = graph_module.graph.find_nodes(op="output")
    returned = output.args[0]
    assert isinstance(returned, list | tuple)
    return [node for node in returned if isinstance(node, Node)]


class _Writer:
    def __init__(self, root: GraphModule, opset: int, external: bool | None) -> None:
        self.root, self.opset, self.external = root, opset, external
        self.names = value_names(root)
        self.taken = set(self.names.values())
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, torch.Tensor] = {}
        self.small: dict[tuple[Any, ...], str] = {}

    def run(self) -> list[Segment]:
        for node in self.root.graph.nodes:
            if node.op == "get_attr":
                self.constants[self.names[node]] = tensor_at(self.root, node)
            elif node.op == "call_function" and node.target is not operator.getitem:
                self._node(node)
        size = sum(_bytes(tensor) for tensor in self.constants.values())
        outside = size > LIMIT if self.external is None else self.external
        return self._external() if outside else [self._model(self._inline()).SerializeToString()]

    # -- nodes ---------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        from onnx import helper

        assert callable(node.target)
        row = operator_of(node.target)
        if row.since > self.opset:
            raise InvalidGraph(
                f"{row.name} needs opset {row.since}, the file has {self.opset}",
                node=format_node(node, self.root),
            )
        values: list[Any] = list(node.args)
        if row.variadic:
            (values,) = values
        attributes: dict[str, Any] = {k: v for k, v in node.kwargs.items() if k not in row.hidden}
        for name, version in row.attribute_before.items():
            if self.opset < version:
                attributes[name] = values.pop(row.inputs.index(name))
        inputs = [self._input(node, row, n, value) for n, value in enumerate(values)]
        while inputs and not inputs[-1]:
            inputs.pop()
        if row.name == "Cast":
            attributes["to"] = _type(getattr(torch, str(node.kwargs["to"])))
        facts: Any = {k: list(v) if isinstance(v, tuple) else v for k, v in attributes.items()}
        made = helper.make_node(row.name, inputs, self._outputs(node), name=node.name, **facts)
        self.nodes.append(made)

    def _outputs(self, node: Node) -> list[str]:
        value = node.meta["val"]
        if not isinstance(value, list | tuple):
            return [self.names[node]]
        found = {int(user.args[1]): self.names[user] for user in node.users}  # type: ignore[arg-type]
        return [
            found.get(n) or _free(f"{self.names[node]}_{n}", self.taken) for n in range(len(value))
        ]

    def _input(self, node: Node, row: Operator, number: int, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, Node):
            return self.names[value]
        name = row.inputs[0] if row.variadic else row.inputs[number]
        dtype = self._dtype(node, row, name, value)
        shape = len(value) if isinstance(value, tuple) else ()
        key = (dtype, shape, value if isinstance(value, tuple) else repr(value))
        if key not in self.small:
            self.small[key] = _free(f"{self.names[node]}_{name}", self.taken)
            self.constants[self.small[key]] = torch.tensor(value, dtype=dtype)
        return self.small[key]

    def _dtype(self, node: Node, row: Operator, name: str, value: Any) -> torch.dtype:
        """A tuple is int64 or float32, a number what the data are."""
        if isinstance(value, tuple):
            real = any(isinstance(item, float) for item in value)
            return torch.float32 if real else torch.int64
        if name in row.integers:
            return torch.int64
        if name == "scale":
            return torch.float32
        if name == "zero_point" and row.name == "QuantizeLinear":
            dtype: torch.dtype = getattr(torch, str(node.kwargs.get("dtype", "int8")))
            return dtype
        dtypes = [item.meta["val"].dtype for item in node.all_input_nodes]
        return next((each for each in dtypes if each != torch.bool), torch.bool)

    # -- the file ------------------------------------------------------------------------------

    def _inline(self) -> list[onnx.TensorProto]:
        return [
            _tensor(name, tensor, raw_data=bytes(_view(tensor)))
            for name, tensor in self.constants.items()
        ]

    def _external(self) -> list[Segment]:
        from onnx import StringStringEntryProto, TensorProto

        found: list[onnx.TensorProto] = []
        pieces: list[Segment] = []
        offset = 0
        for name, tensor in self.constants.items():
            if _bytes(tensor) < ALIGNMENT:
                found.append(_tensor(name, tensor, raw_data=bytes(_view(tensor))))
                continue
            made = _tensor(name, tensor, data_location=TensorProto.EXTERNAL)
            facts = {"location": PLACE, "offset": offset, "length": _bytes(tensor)}
            made.external_data.extend(
                StringStringEntryProto(key=key, value=str(value)) for key, value in facts.items()
            )
            found.append(made)
            rest = -_bytes(tensor) % ALIGNMENT
            pieces += [_view(tensor), bytes(rest)]
            offset += _bytes(tensor) + rest
        head: Segment = self._model(found).SerializeToString()
        return [head, *pieces]

    def _model(self, initializers: Sequence[onnx.TensorProto]) -> onnx.ModelProto:
        from onnx import helper

        inputs = [node for node in self.root.graph.nodes if node.op == "placeholder"]
        graph = helper.make_graph(
            self.nodes,
            "fxquant",
            self._infos(inputs, "inputs"),
            self._infos(_returned(self.root), "outputs"),
            initializer=initializers,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSIONS[self.opset],
            producer_name="fxquant",
        )

    def _infos(self, nodes: Sequence[Node], side: str) -> list[onnx.ValueInfoProto]:
        """Types of inputs or outputs; a named dimension has its name instead of a size."""
        from onnx import helper

        found = []
        specs = getattr(state_of(self.root).signature, side, ())
        for number, node in enumerate(nodes):
            value = node.meta["val"]
            names = specs[number].names if len(specs) == len(nodes) else ()
            sizes = [int(size) for size in value.shape]
            shape = [name or size for name, size in zip(names or sizes, sizes, strict=True)]
            found.append(helper.make_tensor_value_info(self.names[node], _type(value.dtype), shape))
        return found


def _type(dtype: torch.dtype) -> int:
    from onnx import TensorProto

    if dtype not in TYPES:
        raise InvalidGraph(f"the file has no dtype for {dtype}")
    number: int = TensorProto.DataType.Value(TYPES[dtype])
    return number


def _tensor(name: str, tensor: torch.Tensor, **content: Any) -> onnx.TensorProto:
    from onnx import TensorProto

    return TensorProto(
        name=name, data_type=_type(tensor.dtype), dims=tuple(tensor.shape), **content
    )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _view(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor, not copied where they are in order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel() == 0:
        return memoryview(b"")
    content: Any = flat.view(torch.uint8).numpy()
    return memoryview(content).cast("B")
