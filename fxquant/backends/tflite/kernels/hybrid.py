"""Float activations times integer weights: the kernels put the activations on grids themselves.

    q, scale = on_grids(x, dims)            one grid a row of a dense layer, a sample of an image
    y = (sum q * w) * scale * weight_scale + bias

xnnpack      always asymmetric, in float32, to even (`quant.narrow`, which the core graph has too)
others       symmetric, or asymmetric in float64, half away from zero
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from fxquant.quant.narrow import on_own_grids

from .fixed_point import round_half_away
from .quantized import QTensor
from .selection import kernels

Grids = tuple[Tensor, Tensor]
"""Integers less their zero point, and their scales, of size 1 where one holds for all."""


BLOCK = 32
NEAR = 1e-4
"""How far from half-way between two steps a value may be that falls to either side, in steps."""

_ties: ContextVar[list[int] | None] = ContextVar("ties", default=None)


@contextmanager
def counted_ties() -> Iterator[list[int]]:
    """For each value put on grids inside, the most ties that one grid had."""
    found: list[int] = []
    token = _ties.set(found)
    try:
        yield found
    finally:
        _ties.reset(token)


def _counted(x: Tensor, grids: Grids) -> Grids:
    found = _ties.get()
    if found is not None:
        values, scale = grids
        near = (x.double() / scale - values).abs() > 0.5 - NEAR
        rows = [n for n in range(x.dim()) if scale.dim() == x.dim() and scale.shape[n] == 1]
        found.append(int((near.sum(rows) if rows else near.sum()).max()))
    return grids


def image_on_grids(x: Tensor, weights: QTensor, *, asymmetric: bool, pointwise: bool) -> Grids:
    """An image channels last: a grid for each sample; each pixel, where XNNPACK sees a matrix.

    Args:
        x: float32 values.
        weights: the filter; XNNPACK leaves int4 to the other kernels.
        asymmetric: how kernels other than XNNPACK's quantize.
        pointwise: whether every pixel is multiplied with one matrix.
    """
    sample = tuple(range(1 - x.dim(), 0))
    if kernels.get() == "xnnpack" and weights.storage is None:
        return _counted(x, on_own_grids(x, (-1,) if pointwise else sample))
    return _counted(x, _asymmetric(x, sample) if asymmetric else _symmetric(x, sample))


def rows_on_grids(x: Tensor, weights: QTensor, *, asymmetric: bool) -> Grids:
    """Rows of a dense layer, each on its grid.

    XNNPACK takes int4 weights of even length only. The optimized kernel for int4, which takes rows
    of even length from one block on, does not know the asymmetric form.
    """
    int4, length = weights.storage is not None, weights.shape[-1]
    if kernels.get() == "xnnpack" and not (int4 and length % 2):
        return _counted(x, on_own_grids(x, (-1,)))
    blocks = int4 and kernels.get() == "optimized" and length >= BLOCK and length % 2 == 0
    own = _asymmetric if asymmetric and not blocks else _symmetric
    return _counted(x, own(x, (-1,)))


def sequence_on_grids(x: Tensor, asymmetric: bool) -> Grids:
    """Rows of one step of a recurrent layer, each on its grid; no delegate takes these."""
    return _asymmetric(x, (-1,)) if asymmetric else _symmetric(x, (-1,))


def _symmetric(x: Tensor, dims: tuple[int, ...]) -> Grids:
    largest = x.abs().amax(dims, keepdim=True)
    inverse = torch.where(largest > 0, 127.0 / largest, 0.0)
    values = round_half_away((x * inverse).to(torch.float64)).clamp(-127, 127)
    return values.to(torch.float32), torch.where(largest > 0, largest / 127.0, 1.0)


def _asymmetric(x: Tensor, dims: tuple[int, ...]) -> Grids:
    wide = x.to(torch.float64)
    least = wide.amin(dims, keepdim=True).clamp(max=0)
    greatest = wide.amax(dims, keepdim=True).clamp(min=0)
    step = torch.where(greatest > least, (greatest - least) / 255, 1.0)
    from_least, from_greatest = -128 - least / step, 127 - greatest / step
    below = 128 + (least / step).abs() < 127 + (greatest / step).abs()
    zero_point = round_half_away(torch.where(below, from_least, from_greatest).clamp(-128, 127))
    scale = step.to(torch.float32)
    values = (round_half_away(wide / scale.to(torch.float64)) + zero_point).clamp(-128, 127)
    return (values - zero_point).to(torch.float32), scale


def hybrid_result(sums: Tensor, scale: Tensor, weights: QTensor, bias: Tensor | None) -> Tensor:
    """The float result of integer sums.

    Args:
        sums: exact sums of products, channels last.
        scale: of the activations, of the rank of the sums.
        weights: the filter, for its scales.
        bias: float32, one a channel.
    """
    y = (sums.to(torch.float32) * scale) * weights.scale
    return y if bias is None else y + bias
