"""Write recurrent layers as the operators that each step consists of.

    %y = rnn_tanh(%x, %h0, [@w,@u,@b,@c])    %p = linear(%x, @w, @b)          all steps at once
                                             %p_0, %p_1, … = unbind(%p)
                                       ->    %h_1 = tanh(add(%p_0, linear(%h0, @u, @c)))
                                             %h_2 = tanh(add(%p_1, linear(%h_1, @u, @c)))
                                             %y = stack([%h_1,%h_2,…])

What is left are layers and elementwise operators, which quantization, precision rules and reports
know already. Weights stay single tensors that every step reads, under their own names; values that
mean the same at every step (`meta["grid"]`) get one scale. A reader that wants one step only
(`y[:, -1]`, `h_n[-1]`) reads it directly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten, is_aten, named_arguments, overload, packet_name
from fxquant.ir.edit import (
    add_buffer,
    add_module,
    inherit,
    is_attribute,
    prune_attributes,
    read_attribute,
    tensor_at,
)
from fxquant.ir.recurrent import Recurrent, Weights, recurrent
from fxquant.ir.state import state_of
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.recurrent.cells import BLOCKS, STEPS, Step, grid_name
from fxquant.passes.recurrent.whole import wants_whole, why_not_whole
from fxquant.passes.recurrent.writer import Writer
from fxquant.passes.registry import register_pass
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import is_getitem
from fxquant.quant.grouping import GRID

STATES = ("h", "c")


@register_pass
@dataclass(frozen=True)
class UnrollRecurrent(Pass):
    """Write LSTM, GRU and RNN layers, and their cells, step by step.

    graph(%x, %h):                                 graph(%x, %h):
      %y = rnn_tanh_cell(%x, %h, @w, @u)     ->      %y_x = linear(%x, @w)
                                                     %y_u = linear(%h, @u)
                                                     %y_gates = add(%y_x, %y_u)
                                                     %y_h = tanh(%y_gates)
      return (%y)                                    return (%y_h)

    Attributes:
        quantized_only: leave the layers whole that the configuration keeps in float.
        keep: operators over whole sequences to leave whole, e.g. `lstm`, where their weights are
            constants and neither project nor drop.
    """

    name: ClassVar[str] = "unroll-recurrent"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = close(1e-5)

    quantized_only: bool = False
    keep: tuple[str, ...] = ()

    def run(self, graph_module: GraphModule) -> PassResult:
        found = [node for node in graph_module.graph.nodes if recurrent(node) is not None]
        if self.quantized_only:
            config = state_of(graph_module).config
            config = config if isinstance(config, QuantConfig) else QuantConfig()
            found = [node for node in found if _is_quantized(config, node, graph_module)]
        found = [node for node in found if not self._stays(node)]
        for node in found:
            _Unrolling(graph_module, node, self.quantized_only and _whole(graph_module, node)).run()
        if found:
            prune_attributes(graph_module)
        return PassResult(graph_module, bool(found))

    def _stays(self, node: Node) -> bool:
        view = _view(node)
        if view.is_cell or view.kind not in self.keep or (view.train and view.dropout):
            return False
        every = [weights for layer in view.weights for weights in layer]
        constant = all(is_attribute(part) for part in itertools.chain(*every) if part is not None)
        return constant and all(weights.projection is None for weights in every)


def _is_quantized(config: QuantConfig, node: Node, root: GraphModule) -> bool:
    return config.choice(node, root).precision.name != "float32"


def _whole(root: GraphModule, node: Node) -> bool:
    """Whether the steps are to be one operator again; why not, if they cannot, is noted."""
    view, config = _view(node), state_of(root).config
    config = config if isinstance(config, QuantConfig) else QuantConfig()
    precision = config.choice(node, root).precision
    if not wants_whole(root, view.kind, precision):
        return False
    why = why_not_whole(root, node, view, precision)
    if why is not None:
        note = f"%{node.name}: {packet_name(node.target)} is written step by step, as {why}"
        state_of(root).notes.setdefault(UnrollRecurrent.name, []).append(note)
    return why is None


def _view(node: Node) -> Recurrent:
    view = recurrent(node)
    assert view is not None
    return view


class _Unrolling:
    """One operator that is written out."""

    def __init__(self, root: GraphModule, node: Node, whole: bool = False) -> None:
        self.root, self.node, self.view = root, node, _view(node)
        self.whole = whole
        self.write = Writer(root, node, packet_name(node.target))

    def run(self) -> None:
        if self.view.is_cell:
            self._cell()
        else:
            self._sequence()
        self.root.graph.erase_node(self.node)

    # -- one step ------------------------------------------------------------------------------

    def _cell(self) -> None:
        weights = self.view.weights[0][0]
        x = tuple(self._products(self.view.x, weights, ""))
        states = tuple(
            self._zero(state, name, weights, f"{name}0") or state
            for state, name in zip(self.view.states, STATES, strict=False)
        )
        found = STEPS[self.view.kind](Step(self.write, weights, "", "", x, states))
        if len(found) == 1:
            self.node.replace_all_uses_with(found[0])
            return
        for item in list(self.node.users):
            item.replace_all_uses_with(found[_place(item)])
            self.root.graph.erase_node(item)

    # -- a sequence ----------------------------------------------------------------------------

    def _sequence(self) -> None:
        x, view = self.view.x, self.view
        last: list[tuple[Node, ...]] = []
        steps: list[list[Node]] = []
        for layer, directions in enumerate(view.weights):
            if layer:
                x = self._dropped(self._joined(steps, f"l{layer - 1}_y"), layer)
            steps = []
            for number, weights in enumerate(directions):
                label = f"l{layer}" + "_reverse" * number
                states = self._first(layer * len(directions) + number, weights, label)
                layer_name = f"{self.node.name}_{label}" if self.whole else None
                with self.write.within(layer_name, number == 1):
                    outputs, final = self._direction(x, weights, label, states, number == 1)
                steps.append(outputs)
                last.append(final)
        self._give_out(steps, last)

    def _direction(
        self,
        x: Node,
        weights: Weights[Node],
        label: str,
        states: tuple[Node, ...],
        backwards: bool,
    ) -> tuple[list[Node], tuple[Node, ...]]:
        """All steps in one direction: the outputs in order of time, and the last states."""
        blocks = self._products(x, weights, f"{label}_")
        parts = list(enumerate(zip(*(self._steps(block) for block in blocks), strict=True)))
        outputs: list[Node] = []
        for number, part in reversed(parts) if backwards else parts:
            step = Step(self.write, weights, f"{label}_", f"_{number}", part, states)
            states = STEPS[self.view.kind](step)
            outputs.append(states[0])
        return outputs[::-1] if backwards else outputs, states

    def _products(self, x: Node, weights: Weights[Node], prefix: str) -> list[Node]:
        """The input times its weights, in the blocks that a step reads."""
        product = self.write(
            aten.linear.default, x, weights.x, weights.x_bias, name=f"{prefix}x",
            grid=grid_name(weights, "x"), part="x",
        )  # fmt: skip
        blocks = BLOCKS.get(self.view.kind, ())
        if not blocks:
            return [product]
        size = product.meta["val"].shape[-1] // sum(blocks)
        sizes = [size * block for block in blocks]
        whole = self.write(
            aten.split_with_sizes.default, product, sizes, -1, name=f"{prefix}blocks"
        )
        return self.write.parts(whole, f"{prefix}block")

    def _steps(self, block: Node) -> list[Node]:
        """One value for each step."""
        name = block.name.removeprefix(f"{self.node.name}_")
        whole = self.write(aten.unbind.int, block, self.view.time_axis, name=f"{name}_steps")
        return self.write.parts(whole, name)

    def _first(self, index: int, weights: Weights[Node], label: str) -> tuple[Node, ...]:
        """The states before the first step of one layer in one direction."""
        found = []
        for state, name in zip(self.view.states, STATES, strict=False):
            called = f"{label}_{name}0"
            zero = self._zero(state, name, weights, called)
            grid = grid_name(weights, name)
            found.append(
                zero or self.write(aten.select.int, state, 0, index, name=called, grid=grid)
            )
        return tuple(found)

    def _zero(self, state: Node, name: str, weights: Weights[Node], called: str) -> Node | None:
        """A constant of its own, for any batch size, where a state is a constant of zeros."""
        if not is_attribute(state):
            return None
        value = tensor_at(self.root, state).detach()
        if bool(value.any()):
            return None
        zeros = value.new_zeros(1, value.shape[-1])
        path = add_buffer(self.root, f"{self.node.name}_{called}", zeros)
        with self.root.graph.inserting_before(self.node):
            read = read_attribute(self.root.graph, self.root, path)
        read.meta[GRID] = grid_name(weights, name)
        return inherit(read, self.node, value=False)

    def _joined(self, steps: list[list[Node]], name: str) -> Node:
        """The outputs of all steps as one value, both directions side by side."""
        axis, names = self.view.time_axis, ("", "_reverse")
        stacks = [
            self.write(aten.stack.default, outputs, axis, name=f"{name}{suffix}")
            for outputs, suffix in zip(steps, names, strict=False)
        ]
        if len(stacks) == 1:
            return stacks[0]
        return self.write(aten.cat.default, stacks, -1, name=f"{name}_both")

    def _dropped(self, x: Node, layer: int) -> Node:
        """Dropout between layers, as a module that follows train and eval mode."""
        if not (self.view.train and self.view.dropout):
            return x
        module = nn.Dropout(self.view.dropout)
        path = add_module(self.root, f"{self.node.name}_dropout_{layer - 1}", module)
        with self.root.graph.inserting_before(self.node):
            node = self.root.graph.call_module(path, (x,))
        return inherit(node, x)

    # -- results -------------------------------------------------------------------------------

    def _give_out(self, steps: list[list[Node]], last: list[tuple[Node, ...]]) -> None:
        axis, count = self.view.time_axis, len(steps[0])

        def at_step(index: int) -> Node:
            sides = [outputs[index] for outputs in steps]
            if len(sides) == 1:
                return sides[0]
            return self.write(aten.cat.default, sides, -1, name=f"y_{index}")

        for item in [user for user in self.node.users if is_getitem(user)]:
            index = _place(item)
            if index == 0:
                self._replace(item, axis, count, at_step, lambda: self._joined(steps, "y"))
                continue
            states = [final[index - 1] for final in last]
            name = f"{STATES[index - 1]}_n"
            self._replace(
                item,
                0,
                len(states),
                states.__getitem__,
                lambda states=states, name=name: self._stacked(states, name),  # type: ignore[misc]
            )

    def _stacked(self, states: list[Node], name: str) -> Node:
        return self.write(aten.stack.default, states, 0, name=name)

    def _replace(
        self,
        item: Node,
        axis: int,
        count: int,
        at: Callable[[int], Node],
        whole: Callable[[], Node],
    ) -> None:
        """Give readers of one step that step, and all others the whole."""
        for user in list(item.users):
            index = _selected(user, axis, count)
            if index is not None:
                user.replace_all_uses_with(at(index))
                self.root.graph.erase_node(user)
        if item.users:
            item.replace_all_uses_with(whole())
        self.root.graph.erase_node(item)


def _place(item: Node) -> int:
    """Which result of an operator a getitem picks."""
    place = item.args[1]
    assert isinstance(place, int)
    return place


def _selected(user: Node, axis: int, count: int) -> int | None:
    """The place along an axis that a reader picks; None where it reads more."""
    if not is_aten(user) or overload(user) is not aten.select.int:
        return None
    named = named_arguments(user)
    rank = user.meta["val"].dim() + 1
    if named["dim"] % rank != axis or not isinstance(named["index"], int):
        return None
    return int(named["index"]) % count
