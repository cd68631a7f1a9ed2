"""Resizing NHWC images; the result keeps scale and zero point of x.

A result's pixel i reads at i * in / out, at (i + 1/2) * in / out - 1/2 with half_pixel_centers, at
i * (in - 1) / (out - 1) with align_corners.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..kernels.resize import bilinear_integers, bilinear_reals, nearest_positions
from .values import QTensor, Value, has_data, operator


@operator(keeps=True)
def resize_bilinear(
    x: Value,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Value:
    """RESIZE_BILINEAR."""
    if isinstance(x, QTensor):
        values = bilinear_integers(x.values, size, align_corners, half_pixel_centers)
        return x.with_values(values.to(x.dtype))
    if not has_data(x):
        return _resized(x, size)
    return bilinear_reals(x, size, align_corners, half_pixel_centers)


@operator(keeps=True)
def resize_nearest_neighbor(
    x: Value,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Value:
    """RESIZE_NEAREST_NEIGHBOR."""

    def move(data: Tensor) -> Tensor:
        for dim, wanted in enumerate(size, start=1):
            positions = nearest_positions(
                data.shape[dim], wanted, align_corners, half_pixel_centers
            )
            data = data.index_select(dim, positions.to(data.device))
        return data

    if not isinstance(x, QTensor):
        return move(x) if has_data(x) else _resized(x, size)
    return x.with_values(move(x.values))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return x.new_empty((x.shape[0], *size, x.shape[-1]))
