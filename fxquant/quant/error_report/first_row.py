"""The row of a layer before anything is measured: what it is, where it stands, its grid."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from fxquant.ir.edit import get_attribute
from fxquant.ir.source import source_of, source_text
from fxquant.quant.constraints import annotation_of, operator_name
from fxquant.quant.equalization.channels import constant_of
from fxquant.quant.error_report.layer_error import Grid, LayerError
from fxquant.quant.error_report.roles import Part, Roles, is_16_bits
from fxquant.quant.fake_quantize import FakeQuantize


def first_row(roles: Roles, node: Node) -> LayerError:
    """The row of the layer that ends in a node.

    Args:
        roles: of the graph.
        node: what rounds the layer's result, or the operator itself where nothing does.
    """
    rounded = roles.parts[node.name] is Part.ROUNDS
    end = node.all_input_nodes[0] if rounded else node
    chain = _chain(roles, end)
    grid = _grid(roles.root, node) if rounded else None
    if roles.parts[end.name] in {Part.MOVES, Part.LEAVES, Part.INPUT, Part.ROUNDS}:
        return _border(roles, node, end, grid)
    annotation = annotation_of(chain[0])
    quantized = annotation is not None and annotation.quantized
    return LayerError(
        node=chain[0].name,
        operator=" ".join(operator_name(each, roles.root) for each in chain),
        module=module_of(chain[0]),
        precision="float32" if annotation is None else str(annotation.precision),
        reason="" if annotation is None or quantized else annotation.reason,
        source=source_text(chain[0]) or "",
        grid=grid,
    )


def origins(roles: Roles, node: Node) -> Iterator[str]:
    """The nodes that may hold a layer's result after lowering, the likeliest first: what rounds
    it, the operator that ends it, and those before; for an input the way it came."""
    yield node.name
    end = node.all_input_nodes[0] if roles.parts[node.name] is Part.ROUNDS else node
    yield from (each.name for each in reversed(_chain(roles, end)))
    while roles.parts[end.name] in {Part.MOVES, Part.LEAVES} and len(end.all_input_nodes) == 1:
        end = end.all_input_nodes[0]
        yield end.name


def module_of(node: Node) -> str:
    """Path of the user's module: the owner of the weights, or whose forward has the line."""
    for source in node.all_input_nodes:
        read = constant_of(source)
        if read is not None and "." in str(read.target):
            return str(read.target).rpartition(".")[0]
    source_line = source_of(node)
    return "" if source_line is None else source_line.module


def _chain(roles: Roles, end: Node) -> list[Node]:
    """The operator and the activation that is fused into it, in order."""
    for source in end.all_input_nodes:
        if roles.ends_in.get(source.name) == end.name:
            return [*_chain(roles, source), end]
    return [end]


def _border(roles: Roles, node: Node, end: Node, grid: Grid | None) -> LayerError:
    """A value that is put on a grid without being computed: an input, or a second grid."""
    source = end
    while (
        roles.parts[source.name] in {Part.MOVES, Part.LEAVES} and len(source.all_input_nodes) == 1
    ):
        source = source.all_input_nodes[0]
    again = roles.parts[source.name] is Part.ROUNDS
    return LayerError(
        node=node.name if again else source.name,
        operator="requantize" if again else "quantize",
        precision=_dtype(roles.root, node),
        source=source_text(source) or "",
        grid=grid,
    )


def _dtype(root: GraphModule, node: Node) -> str:
    if node.op == "call_module":
        return str(get_attribute(root, str(node.target)).spec.dtype)
    if is_16_bits(node.meta.get("val")):
        return str(node.meta["val"].dtype).removeprefix("torch.")
    low, high = (int(str(each)) for each in node.args[-2:])
    return "int16" if high - low > 255 else "uint8" if low == 0 else "int8"


def _grid(root: GraphModule, node: Node) -> Grid | None:
    """The reals that the integers of a value stand for; None where channels differ."""
    if node.op == "call_module":
        module = get_attribute(root, str(node.target))
        assert isinstance(module, FakeQuantize)
        spec = module.spec
        if spec.axis is not None or spec.rounds or spec.dynamic:
            return None
        scale, zero_point = float(module.scale), int(module.zero_point)
        low, high = module.spec.low, module.spec.high
    elif len(node.args) < 2 or not isinstance(node.args[1], float):
        return None
    else:
        scale = node.args[1]
        zero_point, low, high = (int(str(each)) for each in node.args[2:5])
    return Grid((low - zero_point) * scale, (high - zero_point) * scale, scale)
