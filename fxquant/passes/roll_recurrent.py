"""Find the layers that were written step by step to be one operator, and write them so.

    %p = linear(%x_q, %w_q, @b); …                   %y = quantized_lstm(%x_q, %w_q, %u_q, @b, …)
    %h_1 = mul(%o_1, %bent_1)                  ->    %y_q = fake_quantize_per_tensor_affine(%y)
    %h_1_q = fake_quantize…(%h_1); …
    %all = stack([%h_1_q,%h_2_q,…]) {dim=1}

It is for frozen graphs, right before a backend whose operator computes the layer. What
`unroll-recurrent` noted says which nodes are a layer; each layer is looked at again, and one in
which anything was changed stays as it is. A layer that goes backwards reads its input reversed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten, named_arguments
from fxquant.ir.edit import inherit, prune_attributes, tensor_at
from fxquant.ir.state import state_of
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.dead_code import DeadCode
from fxquant.passes.recurrent.whole import layers_of, place_of
from fxquant.passes.registry import register_pass
from fxquant.quant.quantized_lstm import C_RANGE, H_RANGE, quantized_lstm
from fxquant.quant.tied_grids import tied_blocks

ROLLED = torch.ops.fxquant.quantized_lstm.default
ROLLED_DYNAMIC = torch.ops.fxquant.dynamic_lstm.default
DYNAMIC = torch.ops.fxquant.dynamic_quantize.default
PER_CHANNEL = aten.fake_quantize_per_channel_affine.default
FAKE_QUANTIZE = aten.fake_quantize_per_tensor_affine.default

assert quantized_lstm is not None  # its import declares the operator


@register_pass
@dataclass(frozen=True)
class RollRecurrent(Pass):
    """%h_1 = …; %h_2 = …; stack([%h_1_q,%h_2_q])  ->  quantized_lstm(%x_q, …)"""

    name: ClassVar[str] = "roll-recurrent"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = close(1e-5)

    def run(self, graph_module: GraphModule) -> PassResult:
        rolled = False
        for name, nodes in layers_of(graph_module).items():
            layer = _read(graph_module, _parts(nodes), nodes)
            if isinstance(layer, str):
                note = f"{name} is written step by step, as {layer}"
                state_of(graph_module).notes.setdefault(self.name, []).append(note)
                continue
            _Rolling(graph_module, name, layer).run()
            rolled = True
        if rolled:
            DeadCode().run(graph_module)
            prune_attributes(graph_module)
        return PassResult(graph_module, rolled)


@dataclass(frozen=True)
class _Layer:
    """What the steps of a layer say.

    Attributes:
        target: the operator that computes the layer.
        arguments: of the operator, but for the input.
        x: the input.
        axis: the dimension of the steps.
        outputs: h of each step as its readers see it, in the order of computing.
        backwards: whether the last step of the sequence is the first of these.
        grid: the arguments of the fake-quantize of h; None where it is float.
        cell: the last c, where it may be read.
    """

    target: OpOverload
    arguments: tuple[Any, ...]
    x: Node
    axis: int
    outputs: list[Node]
    backwards: bool
    grid: tuple[Any, ...] | None = None
    cell: Node | None = None


Parts = dict[str, list[Node]]


def _parts(nodes: Sequence[Node]) -> Parts:
    """The nodes of a layer by what they are in a step."""
    parts: Parts = {}
    for node in nodes:
        place = place_of(node)
        assert place is not None
        parts.setdefault(place.part, []).append(node)
    return parts


def _read(root: GraphModule, parts: Parts, nodes: Sequence[Node]) -> _Layer | str:
    """The layer that nodes are; or why they are none."""
    products = [named_arguments(node) for part in ("x", "u") for node in parts[part]]
    if not all(_has_gates(root, product["weight"]) for product in products):
        return "its weights do not have one scale a gate"
    if all(product["input"].target is DYNAMIC for product in products):
        return _dynamic(parts, nodes)
    return _static(parts, nodes)


def _dynamic(parts: Parts, nodes: Sequence[Node]) -> _Layer:
    """A layer of float values and integer weights."""
    outer, inner = (named_arguments(parts[part][0]) for part in ("x", "u"))
    states = inner["input"].args[0], parts["kept"][0].args[1]
    weights = (outer["weight"], inner["weight"], outer["bias"], inner["bias"])
    axis = _time_axis(nodes)
    return _Layer(
        ROLLED_DYNAMIC,
        (*weights, *states, axis == 1),
        outer["input"],
        axis,
        parts["h"],
        parts["h"][0].meta["place"].backwards,
        cell=parts["c"][-1],
    )


def _static(parts: Parts, nodes: Sequence[Node]) -> _Layer | str:
    """A layer of integers."""
    hidden = [_rounded(node) for node in parts.get("h", [])]
    cells = [_rounded(node) for node in parts.get("c", [])]
    found = [node for node in (*hidden, *cells) if node is not None]
    products = [named_arguments(node) for node in parts.get("u", [])]
    if not found or len(found) < len(hidden) + len(cells) or len(hidden) != len(products):
        return "its states are not rounded at every step"
    grids = {node.args[1:] for node in hidden if node is not None}
    cell_grids = {node.args[1:] for node in cells if node is not None}
    if len(grids) > 1 or len(cell_grids) > 1:
        return "its steps do not share their grids"
    grid, cell = grids.pop(), cell_grids.pop()
    if grid[2:] != H_RANGE or cell[1:] != (0, *C_RANGE):
        return "its states are not of 8 and 16 bits"
    first, inner = named_arguments(parts["x"][0]), products[0]
    arguments = (first["weight"], inner["weight"], first["bias"], inner["bias"])
    axis = _time_axis(nodes)
    return _Layer(
        ROLLED,
        (*arguments, grid[0], grid[1], cell[0], axis == 1),
        first["input"],
        axis,
        [node for node in hidden if node is not None],
        parts["h"][0].meta["place"].backwards,
        grid=grid,
    )


def _has_gates(root: GraphModule, weight: Node) -> bool:
    """Whether a weight is rounded with one scale for each gate."""
    if weight.target is FAKE_QUANTIZE:
        return True
    if weight.target is not PER_CHANNEL:
        return False
    scale = tensor_at(root, named_arguments(weight)["scale"])
    return torch.equal(scale, tied_blocks(scale))


def _rounded(node: Node) -> Node | None:
    """The one fake-quantize that reads a value; None where others do."""
    (user, *others) = node.users or (None,)
    return user if user is not None and not others and user.target is FAKE_QUANTIZE else None


def _time_axis(nodes: Sequence[Node]) -> int:
    """The dimension along which the products are taken apart."""
    (whole,) = (node for node in nodes if node.target is aten.unbind.int)
    return int(named_arguments(whole)["dim"])


class _Rolling:
    """One layer that becomes one operator."""

    def __init__(self, root: GraphModule, name: str, layer: _Layer) -> None:
        self.graph, self.name, self.layer = root.graph, name, layer
        self.place = layer.outputs[0]  # readers may stand between the steps
        sizes = layer.x.meta["val"].shape
        self.shape = (*sizes[:-1], layer.outputs[0].meta["val"].shape[-1])

    def run(self) -> None:
        """Write the operator, and let all readers of the steps read it."""
        layer, x = self.layer, self.layer.x
        dynamic = layer.grid is None
        grid = x.args[1:]
        if dynamic and layer.backwards:
            (x,) = x.all_input_nodes
        if layer.backwards:
            x = self._call(
                aten.flip.default, x, [layer.axis], name="flip", shape=x.meta["val"].shape
            )
        if dynamic and layer.backwards:
            x = self._call(DYNAMIC, x, *grid, name="flip_q", shape=x.meta["val"].shape)
        y = self._call(layer.target, x, *layer.arguments, name="y")
        y = self._state_of(y) if layer.grid is None else self._on_grid(y, layer.grid)
        self._replace_stacks(y)
        for number, output in enumerate(layer.outputs):
            self._replace_step(y, number, output)

    def _on_grid(self, y: Node, grid: tuple[Any, ...]) -> Node:
        """The outputs on their grid."""
        return self._call(FAKE_QUANTIZE, y, *grid, name="y_q")

    def _state_of(self, both: Node) -> Node:
        """The outputs; who reads the last c gets it from the operator too."""
        cell = self.layer.cell
        assert cell is not None
        value, state = both.meta["val"], cell.meta["val"]
        both.meta["val"] = (value, value.new_empty(tuple(state.shape)))
        y = self._call(operator.getitem, both, 0, name="out")
        c = self._call(operator.getitem, both, 1, name="c", shape=state.shape)
        readers = {user for user in cell.users if place_of(user) is None}
        cell.replace_all_uses_with(c, delete_user_cb=readers.__contains__)
        return y

    def _replace_stacks(self, y: Node) -> None:
        """All steps together are the result, or its reverse."""
        layer = self.layer
        in_time = layer.outputs[::-1] if layer.backwards else layer.outputs
        for stack in [user for user in in_time[0].users if user.target is aten.stack.default]:
            named = named_arguments(stack)
            if named["dim"] != layer.axis or list(named["tensors"]) != in_time:
                continue
            whole = y
            if layer.backwards:
                whole = self._call(aten.flip.default, y, [layer.axis], name="back")
            stack.replace_all_uses_with(whole)
            self.graph.erase_node(stack)

    def _replace_step(self, y: Node, number: int, output: Node) -> None:
        """One step that somebody outside the layer reads."""
        readers = {user for user in output.users if place_of(user) is None}
        if readers:
            axis, shape = self.layer.axis, output.meta["val"].shape
            name = f"at_{number}"
            step = self._call(aten.select.int, y, axis, number, name=name, shape=shape)
            output.replace_all_uses_with(step, delete_user_cb=readers.__contains__)

    def _call(
        self, target: Callable[..., Any], *args: Any, name: str, shape: Sequence[int] | None = None
    ) -> Node:
        """A node behind the first step, one after the other."""
        with self.graph.inserting_after(self.place):
            node = self.graph.create_node("call_function", target, args, name=f"{self.name}_{name}")
        self.place = node
        node.meta["val"] = self.layer.x.meta["val"].new_empty(tuple(shape or self.shape))
        return inherit(node, self.layer.outputs[-1], value=False)
