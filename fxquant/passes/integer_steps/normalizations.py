"""Normalizations in steps: the mean taken away, the variance, one over its root, weight and bias.

layer_norm(x)   ->   d = x - mean(x); d * rsqrt(mean(d * d) + eps) * w + b

The squares of a row are summed by a product of the row with itself, whose accumulator rounds
nothing; over pixels, whose layout that would change, they are values of their own. A constant row
has variance 0 and d = 0, so that what rsqrt makes of it does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

from fxquant.ir.aten import aten, named_arguments

from .steps import Steps


def layer_norm(write: Steps, node: Node) -> Node:
    """Over the last dimensions."""
    given = named_arguments(node)
    axes = [-dim - 1 for dim in reversed(range(len(given["normalized_shape"])))]
    result = _normalized(write, _centered(write, given["input"], axes), axes, given["eps"])
    return _scaled(write, result, given["weight"], given["bias"])


def rms_norm(write: Steps, node: Node) -> Node:
    """Divided by the root of the mean square; nothing is taken away."""
    given = named_arguments(node)
    axes = [-dim - 1 for dim in reversed(range(len(given["normalized_shape"])))]
    eps = torch.finfo(torch.float32).eps if given["eps"] is None else given["eps"]
    return _scaled(write, _normalized(write, given["input"], axes, eps), given["weight"], None)


def group_norm(write: Steps, node: Node) -> Node:
    """Each group of channels a row; one channel a group, or one group, needs no reshape."""
    given = named_arguments(node)
    x, groups = given["input"], int(given["num_groups"])
    shape = list(x.meta["val"].shape)
    spatial = list(range(2, len(shape)))
    if spatial and groups in (1, shape[1]):
        axes = [1, *spatial] if groups == 1 else spatial
        result = _normalized(write, _centered(write, x, axes), axes, given["eps"])
    else:
        size = math.prod(shape[1:]) // groups
        rows = write(aten.reshape.default, x, [shape[0], groups, size], name="rows")
        rows = _normalized(write, _centered(write, rows, [-1]), [-1], given["eps"])
        result = write(aten.reshape.default, rows, shape, name="groups")
    return _scaled(write, result, *_by_channel(write, node))


def instance_norm(write: Steps, node: Node) -> Node:
    """Over all but batch and channels."""
    given = named_arguments(node)
    x = given["input"]
    axes = list(range(2, x.meta["val"].dim()))
    result = _normalized(write, _centered(write, x, axes), axes, given["eps"])
    return _scaled(write, result, *_by_channel(write, node))


def _centered(write: Steps, x: Node, axes: Sequence[int]) -> Node:
    mean = write(aten.mean.dim, x, list(axes), True, name="mean")
    return write(aten.sub.Tensor, x, mean, name="centered")


def _normalized(write: Steps, x: Node, axes: Sequence[int], eps: float) -> Node:
    """A value of mean 0 divided by its standard deviation over some axes."""
    variance = (
        _row_power(write, x) if write.multiplies and list(axes) == [-1] else _power(write, x, axes)
    )
    safe = write(aten.add.Scalar, variance, eps, name="safe")
    inverse = write(aten.rsqrt.default, safe, name="inverse")
    return write(aten.mul.Tensor, x, inverse, name="normalized")


def _power(write: Steps, x: Node, axes: Sequence[int]) -> Node:
    """The mean square over some axes."""
    square = write(aten.mul.Tensor, x, x, name="square")
    return write(aten.mean.dim, square, list(axes), True, name="variance")


def _row_power(write: Steps, x: Node) -> Node:
    """The mean square over the last axis."""
    row = write(aten.unsqueeze.default, x, -2, name="row")
    column = write(aten.unsqueeze.default, x, -1, name="column")
    product = write(aten.matmul.default, row, column, name="product")
    total = write(aten.squeeze.dim, product, -1, name="total")
    return write(aten.mul.Scalar, total, 1 / x.meta["val"].shape[-1], name="variance")


def _scaled(write: Steps, x: Node, weight: Node | None, bias: Node | None) -> Node:
    if weight is not None:
        x = write(aten.mul.Tensor, x, weight, name="scaled")
    return x if bias is None else write(aten.add.Tensor, x, bias, name="shifted")


def _by_channel(write: Steps, node: Node) -> tuple[Node | None, Node | None]:
    """Weight and bias shaped to broadcast over channels-first data."""
    given = named_arguments(node)
    dims = given["input"].meta["val"].dim() - 2
    shaped: list[Node | None] = []
    for name in ("weight", "bias"):
        value = given[name]
        if value is not None:
            shape = [1, value.meta["val"].numel(), *[1] * dims]
            value = write(aten.reshape.default, value, shape, name=name)
        shaped.append(value)
    return shaped[0], shaped[1]
