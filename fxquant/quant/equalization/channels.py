"""Which channels of which values can be multiplied by one factor without changing the model.

    %a = conv2d(%x, @w1)        rows of @w1 times s
    %b = relu(%a)               relu(s * a) = s * relu(a) for s > 0
    %c = add(%b, %skip)         the channels of %skip must have the same s
    %y = conv2d(%c, @w2)        columns of @w2 divided by s

A layer with constant weights begins such channels and ends them. Between, only operators that let
a positive factor pass may stand; any other operator *freezes* the channels it reads (s = 1).
Concatenation joins per channel, so the parts of a dense block are followed as well. A clamp at
other bounds than 0 lets a factor pass as long as it cuts nothing (`Clamp`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.aten import aten, is_aten, named_arguments, overload, packet_name
from fxquant.ir.edit import get_attribute, is_attribute, tensor_at
from fxquant.ir.views import Convolution, Layer, layer
from fxquant.quant.constraints import clamp_bounds
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.stubs import DeQuantStub, QuantStub

PASSING = frozenset(
    {"relu", "leaky_relu", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"}
    | {"adaptive_avg_pool1d", "adaptive_avg_pool2d"}
    | {"upsample_nearest2d", "upsample_bilinear2d", "neg", "abs", "clone", "contiguous", "alias"}
)
"""Operators of one value that multiply through, channel by channel."""

TYING = frozenset({"add", "sub", "maximum", "minimum"})
"""Operators of two values that need the same factor on both."""


class Channels(NamedTuple):
    """The channels of a value: the axis, and the number of each channel's factor."""

    axis: int
    ids: Tensor


class Clamp(NamedTuple):
    """Channels that a clamp may not begin to cut, and the clamp's bounds."""

    node: Node
    channels: Channels
    low: float
    high: float


@dataclass
class Tied:
    """What `tied_channels` found; `ids` are numbers of factors.

    Attributes:
        values: every value whose channels carry factors.
        begins: layers whose output channels begin with a factor.
        ends: layers that divide the factors of their input away.
        clamps: what limits the factors.
        factor: final factor number of each id.
        frozen: whether a factor must stay 1, by final number.
    """

    values: dict[Node, Channels] = field(default_factory=dict)
    begins: dict[Node, Channels] = field(default_factory=dict)
    ends: dict[Node, Channels] = field(default_factory=dict)
    clamps: list[Clamp] = field(default_factory=list)
    factor: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    frozen: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def of(self, channels: Channels) -> Tensor:
        """The factor number of each channel."""
        return self.factor[channels.ids]


def tied_channels(graph_module: GraphModule) -> Tied:
    """Follow all channels through a core graph, with or without observers."""
    return _Follower(graph_module).run()


class _Follower:
    def __init__(self, root: GraphModule) -> None:
        self.root = root
        self.tied = Tied()
        self.count = 0
        self.equal: list[tuple[Tensor, Tensor]] = []
        self.stopped: list[Tensor] = []
        self.readers = _readers(root)

    def run(self) -> Tied:
        for node in self.root.graph.nodes:
            if node.op in {"placeholder", "get_attr"}:
                continue
            found = self._follow(node)
            if found is not None:
                self.tied.values[node] = found
        self._number()
        return self.tied

    def _follow(self, node: Node) -> Channels | None:
        """The channels of a node's result; what it reads is tied, ended or frozen on the way."""
        view = layer(node)
        if view is not None and self._is_own(view):
            return self._layer(node, view)
        if self._is_identity(node):
            return self._of(node.args[0])
        name = packet_name(node.target) if is_aten(node) else ""
        if name in PASSING or clamp_bounds(node) is not None:
            return self._pass(node)
        if name in TYING:
            return self._tie(node)
        special = {"mul": self._gate, "cat": self._join, "mean": self._mean, "prelu": self._prelu}
        special |= dict.fromkeys(("flatten", "reshape", "view", "squeeze"), self._flatten)
        if name in special:
            return special[name](node)
        return self._freeze(node)

    def _of(self, value: object) -> Channels | None:
        return self.tied.values.get(value) if isinstance(value, Node) else None

    def _freeze(self, node: Node) -> Channels | None:
        """No factor may pass here: all channels that a node reads keep theirs at 1."""
        found = (self._of(source) for source in node.all_input_nodes)
        self.stopped += [channels.ids for channels in found if channels is not None]
        return None

    def _fresh(self, axis: int, count: int) -> Channels:
        self.count += count
        return Channels(axis, torch.arange(self.count - count, self.count))

    def _is_identity(self, node: Node) -> bool:
        if node.op != "call_module":
            return False
        module = get_attribute(self.root, str(node.target))
        return isinstance(module, FakeQuantize | QuantStub | DeQuantStub)

    def _is_own(self, view: Layer) -> bool:
        """Whether a layer's weights are constants with a scale per row that nobody else reads."""
        if isinstance(view, Convolution) and view.transposed:
            return False
        weight, bias = constant_of(view.weight), view.bias
        if weight is None or not (bias is None or is_attribute(bias)):
            return False
        if weight is not view.weight:
            module = get_attribute(self.root, str(view.weight.target))
            if module.spec.axis != 0 or len(view.weight.users) > 1:
                return False
        parts = [weight] if bias is None else [weight, bias]
        return all(self.readers[id(tensor_at(self.root, part))] == 1 for part in parts)

    def _layer(self, node: Node, view: Layer) -> Channels | None:
        axis = node.meta["val"].dim() - 1
        if isinstance(view, Convolution):
            axis -= len(view.stride)
        found = self._of(view.x)
        if found is not None and found.axis == axis:
            self.tied.ends[node] = found
        elif found is not None:
            self.stopped.append(found.ids)
        begun = self._fresh(axis, node.meta["val"].shape[axis])
        self.tied.begins[node] = begun
        return begun

    def _pass(self, node: Node) -> Channels | None:
        found = self._of(node.args[0])
        low, high = clamp_bounds(node) or (0.0, torch.inf)
        if found is None:
            return None
        if low > 0 or high < 0:
            return self._freeze(node)
        if (low, high) not in {(0.0, torch.inf), (-torch.inf, torch.inf), (-torch.inf, 0.0)}:
            self.tied.clamps.append(Clamp(node, found, low, high))
        return found

    def _tie(self, node: Node) -> Channels | None:
        sources = list(node.args[:2])
        found = [self._of(value) for value in sources]
        shape = node.meta["val"].shape
        first, second = found[0], found[1]
        whole = all(isinstance(v, Node) and v.meta["val"].shape == shape for v in sources)
        if first is None or second is None or first.axis != second.axis or not whole:
            return self._freeze(node)
        self.equal.append((first.ids, second.ids))
        return first

    def _gate(self, node: Node) -> Channels | None:
        """A product: the factor of one whole side passes, the other side must have none."""
        shape = node.meta["val"].shape
        sides = [value for value in node.args[:2] if isinstance(value, Node)]
        whole = [value for value in sides if self._of(value) and value.meta["val"].shape == shape]
        if len(whole) != 1 or sides.count(whole[0]) > 1:
            return self._freeze(node)
        others = (self._of(value) for value in sides if value is not whole[0])
        self.stopped += [channels.ids for channels in others if channels is not None]
        return self._of(whole[0])

    def _join(self, node: Node) -> Channels | None:
        named = named_arguments(node)
        found = [self._of(value) for value in named["tensors"]]
        known = [channels for channels in found if channels is not None]
        axis = named["dim"] % node.meta["val"].dim()
        if not known or any(channels.axis != axis for channels in known):
            return self._freeze(node)
        parts = [
            self._still(axis, value.meta["val"].shape[axis]) if channels is None else channels
            for value, channels in zip(named["tensors"], found, strict=True)
        ]
        return Channels(axis, torch.cat([part.ids for part in parts]))

    def _still(self, axis: int, count: int) -> Channels:
        """Channels that carry no factor."""
        channels = self._fresh(axis, count)
        self.stopped.append(channels.ids)
        return channels

    def _mean(self, node: Node) -> Channels | None:
        found, source = self._of(node.args[0]), node.args[0]
        if found is None or overload(node) is not aten.mean.dim:
            return self._freeze(node)
        assert isinstance(source, Node)
        rank = source.meta["val"].dim()
        dims = {d % rank for d in named_arguments(node)["dim"] or range(rank)}
        if any(d <= found.axis for d in dims):
            return self._freeze(node)
        return found

    def _prelu(self, node: Node) -> Channels | None:
        found, slopes = self._of(node.args[0]), node.args[1]
        constant = isinstance(slopes, Node) and constant_of(slopes) is not None
        return found if constant else self._freeze(node)

    def _flatten(self, node: Node) -> Channels | None:
        """Shapes may change behind the channels only if nothing there mixes with them."""
        found, source = self._of(node.args[0]), node.args[0]
        if found is None:
            return None
        assert isinstance(source, Node)
        before, after = source.meta["val"].shape, node.meta["val"].shape
        kept = found.axis + 1
        return found if before[:kept] == after[:kept] else self._freeze(node)

    def _number(self) -> None:
        """Give tied ids one number, and mark the frozen ones."""
        factor = torch.arange(self.count)
        while True:
            before = factor.clone()
            for first, second in self.equal:
                least = torch.minimum(factor[first], factor[second])
                factor.scatter_reduce_(0, first, least, "amin")
                factor.scatter_reduce_(0, second, least, "amin")
            factor = factor[factor]
            if torch.equal(before, factor):
                break
        self.tied.factor = factor
        self.tied.frozen = torch.zeros(self.count, dtype=torch.bool)
        for ids in self.stopped:
            self.tied.frozen[factor[ids]] = True


def constant_of(value: Node) -> Node | None:
    """The stored tensor that a node reads, directly or through its FakeQuantize."""
    if value.op == "call_module" and value.args:
        source = value.args[0]
        value = source if isinstance(source, Node) else value
    return value if is_attribute(value) else None


def _readers(root: GraphModule) -> dict[int, int]:
    """How often each stored tensor is read."""
    count: dict[int, int] = {}
    for node in root.graph.nodes:
        if node.op == "get_attr":
            tensor = get_attribute(root, str(node.target))
            count[id(tensor)] = count.get(id(tensor), 0) + len(node.users)
    return count
