"""Turn a trained graph into what calibration leaves: batch norms folded, ranges known.

    %w_fq = train_quantize<…> @quantizers.w(@w)        %w_fq = fake_quantize<…> @quantizers.w(@w)
    %conv = conv2d(%x_fq, %w_fq, @b)              ->   %conv = conv2d(%x_fq, %w_fq, @b)
    %bn = TrainedBatchNorm @bn(%conv)                  %relu = relu(%conv)
    %relu = relu(%bn)

The new weight is the rounded one times the scale of the batch norm, its grid the trained one times
the same: it holds the very integers that were trained. Evaluated, the graph computes what it
computed before, up to the order of rounding. A batch norm that no layer takes in becomes a
depthwise convolution, dropout goes. A graph that was not in training is left as it is.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.errors import CalibrationError, Problem
from fxquant.ir.aten import aten, named_arguments, overload
from fxquant.ir.edit import (
    add_module,
    get_attribute,
    inherit,
    is_attribute,
    prune_attributes,
    tensor_at,
)
from fxquant.ir.placement import device_of
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.passes.absorbed import batch_norm_at, chain_of, module_of, plain_table
from fxquant.passes.base import CHANGES, Pass, PassResult, Semantics
from fxquant.passes.batch_norm_to_conv import as_convolution, has_convolution
from fxquant.passes.drop_dropout import DropDropout
from fxquant.passes.fuse_conv_bn import (
    fold_into_layer,
    layout_of,
    place_parameter,
    scale_and_shift,
)
from fxquant.passes.insert_observers import NAMESPACE
from fxquant.passes.registry import register_pass
from fxquant.quant.arithmetic import EMPTY_RANGE, SMALLEST_SCALE, Parameters
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import ABSORBED, Annotation, ConstraintTable, annotation_of
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.qat.batch_norm import Line
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from fxquant.quant.settle import fake_quantizes


@register_pass
@dataclass(frozen=True)
class FinishTraining(Pass):
    """Fold batch norms and make plain FakeQuantize of trained ones.

    graph(%x):                                   graph(%x):
      %x_fq = train_quantize<int8>(%x)      ->     %x_fq = fake_quantize<int8>(%x)
      return (%x_fq)                               return (%x_fq)
    """

    name: ClassVar[str] = "finish-training"
    requires: ClassVar[frozenset[str]] = frozenset({"observed"})
    invalidates: ClassVar[frozenset[str]] = frozenset({"trainable"})
    semantics: ClassVar[Semantics] = CHANGES

    def run(self, graph_module: GraphModule) -> PassResult:
        state = state_of(graph_module)
        if "trainable" not in state.properties:
            return PassResult(graph_module, False)
        _check_trained(graph_module)
        graph_module.eval()
        DropDropout().run(graph_module)
        done: set[Node] = set()
        for node in list(graph_module.graph.nodes):
            if layout_of(node) is not None and ABSORBED not in node.meta:
                _finish_layer(graph_module, node, done)
        if isinstance(state.constraints, ConstraintTable):
            state.constraints = plain_table(state.constraints)
        _finish_standalone(graph_module)
        _finish_quantizers(graph_module)
        prune_attributes(graph_module)
        return PassResult(graph_module, True)


def _check_trained(root: GraphModule) -> None:
    found: dict[str, Problem] = {}
    for node, module in fake_quantizes(root):
        if isinstance(module, TrainedFakeQuantize) and not module.is_known():
            value = node.all_input_nodes[0]
            where = (format_node(value, root), source_text(value))
            found.setdefault(str(node.target), Problem(f"@{node.target} saw no batch", *where))
    if found:
        raise CalibrationError(
            f"the model cannot be frozen: {len(found)} ranges are not known",
            fix="train it for a step at least, or calibrate(prepared, data), before convert",
            problems=found.values(),
        )


class _Weight(NamedTuple):
    """The weight of a layer as it was trained.

    Attributes:
        stored: the node that reads the parameter.
        value: what the layer computed with, before the batch norm.
        rounding: the node that rounded it; None for a layer in float.
        quantizer: what rounded it, with the scale that it has now.
        factors: what the weight was multiplied with when it was rounded; None for 1.
        plain: what rounds it without a grid, e.g. to bfloat16; it does so once more when folded.
    """

    stored: Node
    value: Tensor
    rounding: Node | None = None
    quantizer: TrainedFakeQuantize | None = None
    factors: Tensor | None = None
    plain: FakeQuantize | None = None

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale serves the whole weight."""
        return self.quantizer is not None and self.quantizer.spec.axis is None


def _finish_layer(root: GraphModule, layer: Node, done: set[Node]) -> None:
    """Fold what a layer absorbs, and give its weight the trained grid.

    Steps of a recurrent layer read one rounded weight: `done` holds those that are finished.
    """
    if named_arguments(layer)["weight"] in done:
        return
    chain, weight = chain_of(layer), _weight_of(root, layer)
    if weight is None or (weight.quantizer is None and not chain):
        return
    reused = None if weight.rounding is None else _detached(root, layer, weight)
    lines = _line_factor(root, chain)
    scale = torch.ones(1, dtype=torch.float64)
    if chain:
        scale, shift = _composed(root, chain, _channels(layer))
        fold_into_layer(root, layer, scale, shift)
        _take_place_of(layer, chain[-1])
        for node in reversed(chain):
            root.graph.erase_node(node)
    if weight.factors is not None or weight.is_per_tensor:
        # The scale of the batch norm is in the grid already.
        scale = torch.tensor(lines, dtype=torch.float64)
    if weight.rounding is not None:
        module = weight.plain or _scaled_quantizer(weight, scale)
        _requantize(root, layer, reused, module)
        if reused is not None:
            done.add(reused)


def _detached(root: GraphModule, layer: Node, weight: _Weight) -> Node | None:
    """Let a layer read its rounded weight as a parameter.

    Returns the rounding node if nobody else needs it.
    """
    rounding, read = weight.rounding, named_arguments(layer)["weight"]
    assert rounding is not None
    calls = [node for node in root.graph.nodes if node.target == rounding.target]
    alone = len(rounding.users) == 1 or not any(_absorbs(user) for user in rounding.users)
    mine = read is rounding and alone and len(calls) == 1
    layer.replace_input_with(read, weight.stored)
    if mine:
        rounding.update_arg(0, None)
    else:
        _erase_unread(root, read)
    with root.graph.inserting_before(layer):
        name = str(weight.stored.target)
        stored = place_parameter(root, weight.stored, name, weight.value)
    layer.replace_input_with(weight.stored, stored)
    return rounding if mine else None


def _absorbs(user: Node) -> bool:
    """Whether a reader of a weight is no layer, or one that takes in what stands behind it."""
    return layout_of(user) is None or bool(chain_of(user))


def _erase_unread(root: GraphModule, node: Node) -> None:
    """Erase a node and what only it needed."""
    found = {node}
    for candidate in reversed(list(root.graph.nodes)):
        if candidate in found and candidate.op != "get_attr" and not candidate.users:
            found.update(candidate.all_input_nodes)
            root.graph.erase_node(candidate)


def _weight_of(root: GraphModule, layer: Node) -> _Weight | None:
    node = named_arguments(layer)["weight"]
    if is_attribute(node):
        return _Weight(node, tensor_at(root, node).detach())
    factors = None
    if node.target is aten.div.Tensor:
        node, scale = node.args
        factors = _factors(root, scale)
    module = module_of(root, node)
    if isinstance(module, FakeQuantize) and not isinstance(module, TrainedFakeQuantize):
        stored = node.args[0]
        value = tensor_at(root, stored).detach()
        return _Weight(stored, value, node, plain=module) if is_attribute(stored) else None
    if not isinstance(module, TrainedFakeQuantize):
        return None
    source = node.args[0]
    stored = source.args[0] if source.target is aten.mul.Tensor else source
    if not is_attribute(stored):
        return None
    module, value = copy.deepcopy(module), tensor_at(root, stored).detach()
    with torch.no_grad():
        rounded = module(value if factors is None else value * factors)
    value = rounded if factors is None else rounded / factors
    return _Weight(stored, value, node, module, factors)


def _factors(root: GraphModule, node: Node) -> Tensor:
    module = get_attribute(root, str(node.target))
    found: Tensor = module(*(tensor_at(root, argument) for argument in node.all_input_nodes))
    return found


def _channels(layer: Node) -> int:
    axis = -1 if overload(layer) is aten.linear.default else 1
    return int(layer.meta["val"].shape[axis])


def _composed(root: GraphModule, chain: list[Node], channels: int) -> tuple[Tensor, Tensor]:
    """Everything behind a layer as one factor and one offset for each channel, float64."""
    scale = torch.ones(channels, dtype=torch.float64, device=device_of(root))
    shift = torch.zeros_like(scale)
    for node in chain:
        norm, line = batch_norm_at(root, node), module_of(root, node)
        if norm is not None:
            factor, offset = scale_and_shift(norm)
        else:
            assert isinstance(line, Line)
            factor, offset = (
                torch.full_like(scale, line.factor),
                torch.full_like(scale, line.offset),
            )
        scale, shift = scale * factor, shift * factor + offset
    return scale, shift


def _line_factor(root: GraphModule, chain: list[Node]) -> float:
    """By how much the lines behind a layer multiply its result, whatever batch norms do."""
    modules = (module_of(root, node) for node in chain)
    return math.prod(module.factor for module in modules if isinstance(module, Line))


def _take_place_of(layer: Node, last: Node) -> None:
    """Let a layer stand for the end of what it absorbed."""
    mine, its = annotation_of(layer), annotation_of(last)
    if mine is not None and its is not None:
        layer.meta["annotation"] = replace(mine, fused_into=its.fused_into)
    inherit(layer, last, value=False)
    last.replace_all_uses_with(layer)


def _usable(scale: Tensor) -> Tensor:
    """Scales that a file can hold; a channel whose batch norm is 0 has weights 0 on any grid."""
    return torch.where(scale > SMALLEST_SCALE, scale, EMPTY_RANGE)


def _scaled_quantizer(weight: _Weight, scale: Tensor) -> FakeQuantize:
    """A FakeQuantize with the trained grid, scaled like the weight."""
    old = weight.quantizer
    assert old is not None
    grid = old.parameters_now()
    factor = scale.abs().to(grid.scale)
    new = FakeQuantize(old.spec, old.scale.numel(), constant=True).to(old.scale.device)
    new.set_parameters(Parameters(_usable(grid.scale * factor), grid.zero_point))
    new.trained = True
    new.switch(observing=False, quantizing=True)
    return new


def _requantize(root: GraphModule, layer: Node, reused: Node | None, module: FakeQuantize) -> None:
    """Put a FakeQuantize between a layer and its weight."""
    stored = layer.args[1]
    assert isinstance(stored, Node)
    if reused is not None:
        owner, _, name = str(reused.target).rpartition(".")
        get_attribute(root, owner).add_module(name, module)
        reused.update_arg(0, stored)
        layer.prepend(reused)
    else:
        path = add_module(root, f"{NAMESPACE}.{str(stored.target).replace('.', '_')}", module)
        with root.graph.inserting_before(layer):
            reused = root.graph.create_node("call_module", path, (stored,), {})
        reused.name = f"{stored.name}_fq"
        inherit(reused, stored)
    layer.replace_input_with(stored, reused)


def _finish_standalone(root: GraphModule) -> None:
    """Write batch norms that no layer absorbed as depthwise convolutions with weights on a grid."""
    for node in list(root.graph.nodes):
        if has_convolution(root, node):
            annotation = annotation_of(node)
            convolution = as_convolution(root, node)
            if annotation is not None:
                _annotate_convolution(root, convolution, annotation)


def _annotate_convolution(root: GraphModule, node: Node, annotation: Annotation) -> None:
    state = state_of(root)
    table, config = state.constraints, state.config
    if not isinstance(table, ConstraintTable):
        return
    row, spec = table.row_of(node, root), annotation.precision.weights
    if row is None or not annotation.quantized or spec is None:
        return
    node.meta["annotation"] = replace(annotation, row=row)
    per_channel = config.per_channel if isinstance(config, QuantConfig) else True
    per_channel = per_channel and spec.dtype not in table.per_tensor
    spec = replace(spec.along(0 if per_channel else None), observer="minmax")
    weight = node.args[1]
    assert isinstance(weight, Node)
    tensor = tensor_at(root, weight)
    module = FakeQuantize(spec, tensor.shape[0], constant=True).to(tensor.device)
    path = add_module(root, f"{NAMESPACE}.{str(weight.target).replace('.', '_')}", module)
    with root.graph.inserting_before(node):
        rounded = root.graph.create_node("call_module", path, (weight,), {}, f"{weight.name}_fq")
    node.replace_input_with(weight, inherit(rounded, weight))


def _finish_quantizers(root: GraphModule) -> None:
    """Plain FakeQuantize with the trained parameters, in place of trained ones."""
    made: dict[int, FakeQuantize] = {}
    for node, module in list(fake_quantizes(root)):
        if isinstance(module, TrainedFakeQuantize):
            new = made.setdefault(id(module), _plain(module))
            owner, _, name = str(node.target).rpartition(".")
            get_attribute(root, owner).add_module(name, new)


def _plain(module: TrainedFakeQuantize) -> FakeQuantize:
    new = FakeQuantize(module.spec, module.scale.numel(), constant=module.constant)
    new.to(module.scale.device)
    if not module.is_fixed and not module.constant:
        new.set_parameters(module.parameters_now())
    new.switch(observing=False, quantizing=True)
    return new
