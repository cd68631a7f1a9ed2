"""Multiply channels by factors and divide them away in the layers that follow, for less noise.

    %a = conv2d(%x, @w1, @b1)                %a = conv2d(%x, @w1 * s, @b1 * s)
    %r = relu(%a)                       ->   %r = relu(%a)
    %y = conv2d(%r, @w2, @b2)                %y = conv2d(%r, @w2 / s, @b2)

In floating point the model stays the same up to rounding: relu and the other operators between let
positive factors pass (`channels`). In integers a value has one scale for all channels; channels
whose ranges differ less lose less. Weights with a scale per row take their factors for nothing, and
a depthwise convolution takes both for nothing. Where a clamp other than relu stands between
(relu6), channels are only widened, and only so far that what stays below the bound on the samples
still does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from fxquant.ir.edit import get_attribute, tensor_at
from fxquant.ir.views import Convolution, Layer, layer
from fxquant.quant.batches import Call
from fxquant.quant.equalization.channels import Channels, Clamp, Tied, constant_of, tied_channels
from fxquant.quant.equalization.factors import Component, Reader, Stored, chosen
from fxquant.quant.equalization.statistics import Statistics, collect
from fxquant.quant.fake_quantize import FakeQuantize

MARGIN = 2.0
"""How far below a clamp's bound the largest sample stays after widening."""

Found = dict[Node, Statistics]


def equalize_channels(graph_module: GraphModule, calls: Iterable[Call]) -> int:
    """Equalize the channels of an observed graph; its tensors are replaced, not written.

    Args:
        graph_module: a graph with observers, all of them off.
        calls: samples, each with the graph or a copy for another batch size.

    Returns:
        The number of factors other than 1.
    """
    tied = tied_channels(graph_module)
    stored = [node for node in tied.values if is_stored(graph_module, node)]
    watched = [*stored, *(clamp.node for clamp in tied.clamps), *_inputs(tied)]
    found = collect(calls, {node: tied.values[node].axis for node in watched})
    if not all(statistics.finite for statistics in found.values()):
        return 0  # The observers will say which value it is.
    most = _bounds(tied, found)
    factors = torch.ones_like(most)
    for component in _components(graph_module, tied, stored, found, most):
        best = chosen(component)
        factors = factors if best is None else factors * best
    _rewrite(graph_module, tied, factors)
    return int((factors != 1).sum())


def is_stored(root: GraphModule, node: Node) -> bool:
    """Whether a node stores a value on an 8-bit grid whose range comes from data."""
    if node.op != "call_module":
        return False
    module = get_attribute(root, str(node.target))
    if not isinstance(module, FakeQuantize) or module.is_fixed:
        return False
    # 16 bits hold channels of any width; factors would only make weights harder to round.
    return module.spec.dtype != "int16"


def _inputs(tied: Tied) -> list[Node]:
    return [_layer(node).x for node in tied.ends]


def _layer(node: Node) -> Layer:
    found = layer(node)
    assert found is not None
    return found


def _bounds(tied: Tied, found: Found) -> Tensor:
    """The largest factor that is allowed, per factor number."""
    most = torch.full(tied.factor.shape, torch.inf, dtype=torch.float64)
    most[tied.frozen] = 1.0
    for clamp in tied.clamps:
        room = _room(clamp, found[clamp.node])
        most.scatter_reduce_(0, tied.of(clamp.channels), room, "amin")
    return most.clamp(min=1.0)


def _room(clamp: Clamp, statistics: Statistics) -> Tensor:
    """How much wider each channel may become before the clamp cuts it."""
    above = clamp.high / (MARGIN * statistics.high.clamp(min=0))
    below = clamp.low / (MARGIN * statistics.low.clamp(max=0)) if clamp.low < 0 else torch.inf
    return torch.minimum(above, torch.as_tensor(below).double())


def _components(
    root: GraphModule, tied: Tied, stored: list[Node], found: Found, most: Tensor
) -> Iterator[Component]:
    """The sets of values that share factors, each with the layers that read them."""
    order = {node: place for place, node in enumerate(root.graph.nodes)}
    ends = [(node, tied.of(channels)) for node, channels in tied.ends.items()]
    for numbers, values in _together(tied, stored):
        component = Component(numbers, most)
        inside = torch.zeros_like(tied.frozen).index_fill_(0, numbers, True)
        component.stored = [_stored(tied, node, found[node]) for node in values]
        for node, number in ends:
            if inside[number].any():
                x = _layer(node).x
                before = sum(order[value] <= order[x] for value in values)
                component.readers.append(_reader(root, node, number, found[x], before))
        if component.readers and (most[numbers] > 1).any():
            yield component


def _together(tied: Tied, stored: list[Node]) -> Iterator[tuple[Tensor, list[Node]]]:
    """Stored values that have factors in common, and all their factors."""
    label = torch.arange(tied.factor.numel())
    numbers = [tied.of(tied.values[node]) for node in stored]
    while True:
        before = label.clone()
        for number in numbers:
            label[number] = label[number].min()
        if torch.equal(label, before):
            break
    for mark in dict.fromkeys(int(label[number[0]]) for number in numbers):
        values = [n for n, number in zip(stored, numbers, strict=True) if label[number[0]] == mark]
        yield (label == mark).nonzero().flatten(), values


def _stored(tied: Tied, node: Node, statistics: Statistics) -> Stored:
    return Stored(tied.of(tied.values[node]), *statistics.reach)


def _reader(root: GraphModule, node: Node, number: Tensor, found: Statistics, noise: int) -> Reader:
    weight = by_group(weight_of(root, node), node)
    taps = weight.shape[3]
    squares = weight.double().square().sum((1, 3))[:, None].cpu()
    largest = weight.abs().amax(3).cpu().double()
    return Reader(number, found.power, squares, largest, taps, noise)


def weight_of(root: GraphModule, node: Node) -> Tensor:
    """The constant weights of a layer."""
    read = constant_of(_layer(node).weight)
    assert read is not None
    return tensor_at(root, read).detach()


def by_group(weight: Tensor, node: Node) -> Tensor:
    """A layer's weights as [groups, rows, channels per group, taps]."""
    view = _layer(node)
    groups = view.groups if isinstance(view, Convolution) else 1
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _rewrite(root: GraphModule, tied: Tied, factors: Tensor) -> None:
    """Multiply rows and biases where factors begin, and divide columns where they end."""
    for node in {**tied.begins, **tied.ends}:
        begun, ended = (_of(tied, side.get(node), factors) for side in (tied.begins, tied.ends))
        if begun is None and ended is None:
            continue
        view, weight = _layer(node), weight_of(root, node)
        if begun is not None:
            weight = weight * begun.view(-1, *[1] * (weight.dim() - 1)).to(weight)
            if view.bias is not None:
                bias = tensor_at(root, view.bias).detach()
                _replace(root, view.bias, bias * begun.to(bias))
        if ended is not None:
            parts = by_group(weight, node)
            weight = (parts / ended.view(parts.shape[0], 1, -1, 1).to(weight)).view_as(weight)
        read = constant_of(view.weight)
        assert read is not None
        _replace(root, read, weight)


def _of(tied: Tied, channels: Channels | None, factors: Tensor) -> Tensor | None:
    """The factors of these channels; None where all of them are 1."""
    found = None if channels is None else factors[tied.of(channels)]
    return None if found is None or bool((found == 1).all()) else found


def _replace(root: GraphModule, read: Node, tensor: Tensor) -> None:
    owner_path, _, name = str(read.target).rpartition(".")
    owner = get_attribute(root, owner_path) if owner_path else root
    before = getattr(owner, name)
    trained = isinstance(before, nn.Parameter)
    setattr(owner, name, nn.Parameter(tensor, before.requires_grad) if trained else tensor)
    read.meta["val"] = tensor
