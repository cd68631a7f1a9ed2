"""Absorb what a ReLU never falls below into the bias of the layer that reads it.

    %a = conv2d(%x, @w1, @b1)                %a = conv2d(%x, @w1, @b1 - c)
    %r = relu(%a)                       ->   %r = relu(%a)                      = relu(before) - c
    %y = conv2d(%r, @w2, @b2)                %y = conv2d(%r, @w2, @b2 + w2 c)

A channel whose values all lie far above 0 wastes the part of its range below them: an integer grid
holds 0 anyway. Equalized channels often look so. Here c is the smallest value of each channel on
the samples, at least 0. Where no value is smaller, relu(a - c) is relu(a) - c and the float model
stays the same up to rounding; a value below c counts as c from then on.

Only where that holds at every position: the ReLU has no upper bound, nothing else reads what is
shifted, and the reader pads nothing, for its zeros would have to be -c. Values in float, with 16
bits or with a prescribed range are left, they would not become finer.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.1.3, which takes c from batch norms (mean - 3 deviations) instead of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.edit import get_attribute
from fxquant.ir.views import Convolution, layer
from fxquant.quant.batches import Call
from fxquant.quant.bias_correction import add_to_bias, channel_axis
from fxquant.quant.constraints import clamp_bounds
from fxquant.quant.equalization.channels import constant_of
from fxquant.quant.equalization.equalize import by_group, is_stored, weight_of
from fxquant.quant.equalization.statistics import collect
from fxquant.quant.fake_quantize import FakeQuantize

RELU = (0.0, torch.inf)


class Pair(NamedTuple):
    """A layer that ends in a ReLU, and the layer that reads it."""

    first: Node
    second: Node


def absorb_high_bias(graph_module: GraphModule, calls: Iterable[Call]) -> int:
    """Absorb the high biases of an observed graph; the layers get biases of their own.

    Done twice on the same samples it changes nothing more: the smallest values are 0 then.

    Args:
        graph_module: a graph with observers, all of them off.
        calls: samples, each with the graph or a copy for another batch size.

    Returns:
        The number of channels that were shifted.
    """
    pairs = list(absorbing_pairs(graph_module))
    axes = {pair.first: _axis(pair.first) for pair in pairs}
    if not pairs:
        return 0
    found = collect(calls, axes)
    if not all(statistics.finite for statistics in found.values()):
        return 0  # The observers will say which value it is.
    count = 0
    for first, second in pairs:
        least = found[first].low.clamp(min=0.0)
        if least.any():
            _add(graph_module, first, -least)
            _add(graph_module, second, _carried(graph_module, second, least))
            count += int((least > 0).sum())
    return count


def absorbing_pairs(graph_module: GraphModule) -> Iterator[Pair]:
    """The pairs of layers between which a constant can be moved, in order."""
    for node in graph_module.graph.nodes:
        if not _is_integer_layer(node):
            continue
        reader = _reader_behind_relu(graph_module, node)
        if reader is not None and _takes(node, reader):
            yield Pair(node, reader)


def _reader_behind_relu(root: GraphModule, node: Node) -> Node | None:
    """What reads a node's stored ReLU, each value on the way being read once; None if there is
    something else."""
    relus, stored = 0, False
    while len(node.users) == 1:
        (node,) = node.users
        if clamp_bounds(node) == RELU:
            relus += 1
        elif _is_observer(root, node):
            if not is_stored(root, node):
                return None
            stored = relus > 0
        else:
            return node if stored else None
    return None


def _is_observer(root: GraphModule, node: Node) -> bool:
    if node.op != "call_module":
        return False
    return isinstance(get_attribute(root, str(node.target)), FakeQuantize)


def _takes(first: Node, second: Node) -> bool:
    """Whether a constant per channel of the input is one per channel of a layer's result."""
    if not _is_integer_layer(second) or channel_axis(second) != channel_axis(first):
        return False
    view = layer(second)
    return not (isinstance(view, Convolution) and (view.transposed or any(view.padding)))


def _is_integer_layer(node: Node) -> bool:
    """Whether a node is a layer with constant weights whose bias can be changed."""
    view = layer(node)
    if view is None or constant_of(view.weight) is None:
        return False
    return channel_axis(node) is not None


def _axis(node: Node) -> int:
    axis = channel_axis(node)
    assert axis is not None
    return int(node.meta["val"].dim()) + axis


def _add(root: GraphModule, node: Node, shift: Tensor) -> None:
    add_to_bias(root, node, shift.to(weight_of(root, node)))


def _carried(root: GraphModule, node: Node, shift: Tensor) -> Tensor:
    """What a layer makes of a constant per channel, [rows], float64."""
    weight = by_group(weight_of(root, node), node).cpu().double()
    return (weight.sum(3) * shift.view(weight.shape[0], 1, -1)).sum(2).flatten()
