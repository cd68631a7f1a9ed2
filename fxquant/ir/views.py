"""Typed, frozen views of core nodes, so that passes say `conv.weight`, not `node.args[1]`.

    convolution(node)  ->  Convolution(x=%x, weight=@w, bias=None, stride=(2, 2), …), or None
    arguments(node)    ->  {"self": %x, "dim": 1, "dtype": None}: any operator, defaults filled in

A view is read once and does not follow later edits of its node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch._ops import OpOverload
from torch.fx import Node

from fxquant.ir.aten import aten, is_aten, named_arguments, overload

Sizes = tuple[int, ...]

CONVOLUTIONS: dict[OpOverload, bool] = {
    aten.conv1d.default: False,
    aten.conv2d.default: False,
    aten.conv3d.default: False,
    aten.conv_transpose1d.default: True,
    aten.conv_transpose2d.input: True,
    aten.conv_transpose3d.input: True,
}
POOLS: dict[OpOverload, str] = {
    aten.max_pool1d.default: "max",
    aten.max_pool2d.default: "max",
    aten.max_pool3d.default: "max",
    aten.avg_pool1d.default: "average",
    aten.avg_pool2d.default: "average",
    aten.avg_pool3d.default: "average",
}


@dataclass(frozen=True)
class Layer:
    """An operator with weights: a convolution or a linear layer."""

    x: Node
    weight: Node
    bias: Node | None


@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution, transposed or not."""

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int
    transposed: bool
    output_padding: Sizes


@dataclass(frozen=True)
class Pool:
    """A pool over windows; `kind` is "max" or "average"."""

    x: Node
    kind: str
    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    ceil_mode: bool
    count_include_pad: bool


def arguments(node: Node) -> dict[str, Any]:
    """Every argument of an ATen node by name, defaults filled in."""
    return named_arguments(node)


def convolution(node: Node) -> Convolution | None:
    """The view of a convolution, None for any other node."""
    if not is_aten(node) or overload(node) not in CONVOLUTIONS:
        return None
    named = named_arguments(node)
    stride = tuple(named["stride"])
    return Convolution(
        x=named["input"],
        weight=named["weight"],
        bias=named["bias"],
        stride=stride,
        padding=tuple(named["padding"]),
        dilation=tuple(named["dilation"]),
        groups=named["groups"],
        transposed=CONVOLUTIONS[overload(node)],
        output_padding=tuple(named.get("output_padding", [0] * len(stride))),
    )


def layer(node: Node) -> Layer | None:
    """The view of a convolution or a linear layer, None for any other node."""
    if is_aten(node) and overload(node) is aten.linear.default:
        named = named_arguments(node)
        return Layer(named["input"], named["weight"], named["bias"])
    return convolution(node)


def pool(node: Node) -> Pool | None:
    """The view of a pool over windows, None for any other node."""
    if not is_aten(node) or overload(node) not in POOLS:
        return None
    named = named_arguments(node)
    kernel = tuple(named["kernel_size"])
    return Pool(
        x=named["self"],
        kind=POOLS[overload(node)],
        kernel_size=kernel,
        stride=tuple(named["stride"]) or kernel,
        padding=tuple(named["padding"]),
        dilation=tuple(named.get("dilation", [1] * len(kernel))),
        ceil_mode=named["ceil_mode"],
        count_include_pad=named.get("count_include_pad", False),
    )
