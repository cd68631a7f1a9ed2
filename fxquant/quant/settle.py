"""Turn what observers saw into scales and zero points, for a whole prepared graph.

Activations first, weights after them: a weight's scale must leave room for the bias, which is
stored as int32 in units of input scale * weight scale. Where weights are near 0 beside an ordinary
bias (dead channels) the scale of those channels is raised. Last, output scales far below the
products' are raised where the target sets a limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.errors import CalibrationError, Problem
from fxquant.ir.edit import get_attribute, is_attribute, tensor_at
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.quant.arithmetic import Parameters, wide_enough_for_bias
from fxquant.quant.constraints import ConstraintTable, annotation_of, roles
from fxquant.quant.fake_quantize import FakeQuantize


def fake_quantizes(graph_module: GraphModule) -> Iterator[tuple[Node, FakeQuantize]]:
    """Every call of a FakeQuantize with its module, in order."""
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            module = get_attribute(graph_module, str(node.target))
            if isinstance(module, FakeQuantize):
                yield node, module


def settle(graph_module: GraphModule) -> None:
    """Give every FakeQuantize its scale and zero point.

    Raises:
        CalibrationError: observers that saw nothing, or NaN or infinity; all of them are listed.
    """
    check_observers(graph_module)
    calls = list(fake_quantizes(graph_module))
    for _, module in calls:
        if not module.constant and not module.assigned:
            module.take_parameters()
    own = [m for _, m in calls if m.constant and not (m.is_fixed or m.follows_value)]
    constants = {id(m): m for m in own}
    for key, module in constants.items():
        _settle_constant(graph_module, module, [node for node, m in calls if id(m) == key])
    table = state_of(graph_module).constraints
    if isinstance(table, ConstraintTable) and table.largest_ratio is not None:
        for node in graph_module.graph.nodes:
            _bound_ratio(graph_module, node, table.largest_ratio)


def check_observers(graph_module: GraphModule) -> None:
    """Raise the error of `settle`, if there is one."""
    found: dict[str, Problem] = {}
    for node, module in fake_quantizes(graph_module):
        what = module.problem()
        if what is not None:
            value = node.all_input_nodes[0]
            text = f"@{node.target} {what}"
            found.setdefault(
                str(node.target),
                Problem(text, format_node(value, graph_module), source_text(value)),
            )
    if found:
        raise CalibrationError(
            f"{len(found)} observers cannot tell a range",
            fix="calibrate(prepared, data) with data that reach every operator and are finite",
            problems=found.values(),
        )


def _settle_constant(root: GraphModule, module: FakeQuantize, calls: list[Node]) -> None:
    found = module.parameters_now()
    if not module.trained:
        module.observer.reset()
        for node in calls:
            module.observer(tensor_at(root, node.all_input_nodes[0]))
        found = module.observer.parameters_of()
    scale = found.scale
    for user in (user for node in calls for user in node.users):
        scale = _with_room_for_bias(root, user, scale)
    scale = module.observer.tied(scale)
    module.set_parameters(Parameters(scale, found.zero_point))


def _with_room_for_bias(root: GraphModule, user: Node, scale: Tensor) -> Tensor:
    by_role = {role.kind: operand.node for operand, role in roles(user)}
    bias, source = by_role.get("int32"), by_role.get("asymmetric")
    if bias is None or source is None or not is_attribute(bias):
        return scale
    grid = grid_of(root, source)
    if grid is None or grid.spec.dtype == "int16":  # beside those a bias has 64 bits
        return scale
    least = tensor_at(root, bias)
    if scale.dim() == 0:
        least = least.abs().amax()
    elif least.numel() != scale.numel():  # groups of a transposed convolution share scales
        least = least.abs().reshape(-1, scale.numel()).amax(0)
    return wide_enough_for_bias(scale, least, float(grid.parameters_now().scale))


def _bound_ratio(root: GraphModule, node: Node, largest: float) -> None:
    """Raise an output scale that is too fine for the products, e.g. where a ReLU gives only 0."""
    by_role = {role.kind: operand.node for operand, role in roles(node)}
    grids = [grid_of(root, by_role[k]) for k in ("asymmetric", "symmetric") if k in by_role]
    output = _grid_behind(root, node)
    if len(grids) != 2 or None in grids or output is None or output.is_fixed:
        return
    product = math.prod(
        float(grid.parameters_now().scale.max()) for grid in grids if grid is not None
    )
    least = product / largest
    if float(output.parameters_now().scale) < least:
        output.set_parameters(Parameters(torch.tensor(least), output.zero_point))


def _grid_behind(root: GraphModule, node: Node) -> FakeQuantize | None:
    """The FakeQuantize right behind a node, or behind the activation that it is fused with."""
    annotation = annotation_of(node)
    if annotation is None or len(node.users) != 1:
        return None
    (user,) = node.users
    return _grid_behind(root, user) if annotation.fused_into is not None else grid_of(root, user)


def grid_of(root: GraphModule, value: Node) -> FakeQuantize | None:
    """The FakeQuantize whose grid a value lies on, looked up through operators that only move
    it."""
    if value.op == "call_module":
        module = get_attribute(root, str(value.target))
        if isinstance(module, FakeQuantize):
            return module if module.has_grid else None
    annotation = annotation_of(value)
    if annotation is None or not annotation.output.moves:
        return None
    return grid_of(root, value.all_input_nodes[0])


def flags(graph_module: GraphModule) -> list[Tensor]:
    """Where every observer notes its first bad batch, in place while it observes."""
    modules = dict.fromkeys(module for _, module in fake_quantizes(graph_module))
    return [module.observer.bad_batch for module in modules if not module.is_fixed]


def first_bad(marks: list[Tensor]) -> int:
    """The first bad batch of any observer, asked for once; negative: none."""
    return int(torch.stack(marks).amax()) if marks else -1
