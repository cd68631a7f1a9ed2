"""Let every FakeQuantize train: ranges follow from batch to batch, or steps are learned.

    %w_fq = fake_quantize<int8 …> @quantizers.w(@w)  ->  %w_fq = train_quantize<int8 …> …

Weights with one scale per output channel are rounded as they are; the scale of the batch norm
behind them cancels (see `quant.qat.batch_norm`). For other grids it is put around the rounding:

    %s = weight_scale @w_scale(@w, @bn.running_var, @bn.weight)
    %ws = mul(@w, %s); %ws_fq = train_quantize<int8 …> @quantizers.w(%ws); %w_fq = div(%ws_fq, %s)

What the graph does not read is dropped, because `DistributedDataParallel` wants a gradient for
every parameter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

from fxquant.ir.aten import aten, named_arguments
from fxquant.ir.edit import (
    add_module,
    get_attribute,
    inherit,
    is_attribute,
    prune_attributes,
    read_attribute,
)
from fxquant.ir.state import state_of
from fxquant.passes.absorbed import batch_norm_at, layers
from fxquant.passes.base import CHANGES, Pass, PassResult, Semantics
from fxquant.passes.fuse_conv_bn import layout_of
from fxquant.passes.insert_observers import NAMESPACE
from fxquant.passes.registry import register_pass
from fxquant.quant.config import QuantConfig
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.qat.batch_norm import WeightScale
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from fxquant.quant.qat.learned import LearnedFakeQuantize
from fxquant.quant.qat.tied_grids import TIED
from fxquant.quant.settle import fake_quantizes
from fxquant.quant.spec import QuantSpec


@register_pass
@dataclass(frozen=True)
class TrainQuantizers(Pass):
    """Let every FakeQuantize train.

    graph(%x):                                   graph(%x):
      %x_fq = fake_quantize<int8>(%x)       ->     %x_fq = train_quantize<int8>(%x)
      return (%x_fq)                               return (%x_fq)

    Attributes:
        observer: how the ranges of activations follow: `moving_average` or `minmax`.
    """

    name: ClassVar[str] = "train-quantizers"
    requires: ClassVar[frozenset[str]] = frozenset({"observed", "trainable"})
    semantics: ClassVar[Semantics] = CHANGES

    observer: str = "moving_average"

    def run(self, graph_module: GraphModule) -> PassResult:
        made: dict[int, TrainedFakeQuantize] = {}
        config = state_of(graph_module).config
        learned = config.learned if isinstance(config, QuantConfig) else None
        for node, module in list(fake_quantizes(graph_module)):
            if not module.has_grid:  # such values are rounded in training as they always are
                module.switch(observing=False, quantizing=True)
                continue
            made.setdefault(id(module), self._trained(module, learned))
            name = str(node.target).rpartition(".")[2]
            get_attribute(graph_module, NAMESPACE).add_module(name, made[id(module)])
        for layer, chain in layers(graph_module):
            for node in chain:
                norm = batch_norm_at(graph_module, node)
                if norm is not None:
                    _scale(graph_module, layer, node, norm)
        prune_attributes(graph_module)
        _without_correction(graph_module)
        return PassResult(graph_module, True)

    def _trained(self, module: FakeQuantize, learned: str | None) -> TrainedFakeQuantize:
        channels, constant = module.scale.numel(), module.constant
        tied = TIED.get(module.spec.observer)
        if tied is not None:
            return tied(module.spec, channels, constant=constant)
        spec = replace(module.spec, observer="minmax" if constant else self.observer)
        is_operand = constant and not spec.symmetric
        made = TrainedFakeQuantize(spec, channels, constant=constant)
        if learned is not None and not module.is_fixed and not is_operand:
            offset = learned == "lsq+"
            made = LearnedFakeQuantize(spec, channels, constant=constant, offset=offset)
        return made.to(module.scale.device)


def _without_correction(root: GraphModule) -> None:
    """Training finds weights and biases by itself; `calibrate` only finds ranges."""
    state = state_of(root)
    if isinstance(state.config, QuantConfig):
        off = replace(state.config, equalize=False, absorb_bias=False, correct_bias=False)
        state.config = replace(off, refine_rounding=False)


def _scale(root: GraphModule, layer: Node, node: Node, norm: _BatchNorm) -> None:
    """Put the scale of a batch norm around the rounding of the weight, where that matters."""
    quantized = named_arguments(layer)["weight"]
    module = quantizer_of(root, quantized)
    if module is None or not module.has_grid:
        return
    if is_proportional(module.spec, module.scale.numel(), layer, norm):
        return
    (weight,) = quantized.args
    graph, prefix = root.graph, str(weight.target)
    label = prefix.replace(".", "_")
    kind = layout_of(layer)
    assert kind is not None
    groups = int(named_arguments(layer).get("groups", 1))
    with graph.inserting_before(layer):
        parameters = [read_attribute(graph, root, f"{node.target}.running_var")]
        if norm.weight is not None:
            parameters.append(read_attribute(graph, root, f"{node.target}.weight"))
        path = add_module(root, f"{prefix}_scale", WeightScale(norm.eps, kind.transposed, groups))
        factors = graph.create_node("call_module", path, (weight, *parameters), {}, f"{label}_s")
        scaled = _call(graph, aten.mul.Tensor, (weight, factors), f"{label}_scaled")
        target = str(quantized.target)
        rounded = graph.create_node("call_module", target, (scaled,), {}, f"{label}_scaled_fq")
        back = _call(graph, aten.div.Tensor, (rounded, factors), f"{label}_unscaled")
    for made in (factors, scaled, rounded, back):
        inherit(made, quantized)
    layer.replace_input_with(quantized, back)
    if not quantized.users:
        graph.erase_node(quantized)


def _call(graph: Graph, target: OpOverload, args: tuple[Node, ...], name: str) -> Node:
    return graph.create_node("call_function", target, args, {}, name)


def quantizer_of(root: GraphModule, value: object) -> FakeQuantize | None:
    """The FakeQuantize right behind a stored tensor whose result this value is."""
    if not isinstance(value, Node) or value.op != "call_module":
        return None
    module = get_attribute(root, str(value.target))
    return module if isinstance(module, FakeQuantize) and is_attribute(value.args[0]) else None


def is_proportional(spec: QuantSpec, channels: int, layer: Node, norm: _BatchNorm) -> bool:
    """Whether rounding commutes with the scale of a batch norm: one scale for each channel of it,
    and a range that a negative factor maps onto itself."""
    kind = layout_of(layer)
    axis = 1 if kind is not None and kind.transposed else 0
    symmetric = spec.symmetric and spec.low == -spec.high
    return symmetric and spec.axis == axis and channels == norm.num_features
