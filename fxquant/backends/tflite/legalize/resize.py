"""Resizing images: RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR, or exact products.

upsample_bilinear2d {align_corners=False}   ->   resize_bilinear {half_pixel_centers}
upsample_nearest2d                          ->   resize_nearest_neighbor
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .pooling import along_axis, as_image, from_image
from .registry import legalize
from .rewriter import NoIntegerForm, Rewriter
from .values import Constant, Value


@legalize(aten.upsample_bilinear2d.default, aten.upsample_bilinear2d.vec, moves=True)
def upsample_bilinear2d(
    r: Rewriter, x: Value, size: Sequence[int] | None, align_corners: bool, *scales: object
) -> Value:
    """RESIZE_BILINEAR; with a scale that is not out / in, one exact product an axis."""
    wanted = r.result_shape[2:]
    if not align_corners and not _is_plain(r.shape(x)[2:], wanted, _factors(scales, 2)):
        return _by_products(r, x, wanted, _factors(scales, 2), align_corners)
    last = r.emit(
        tfl.resize_bilinear,
        r.nhwc(x),
        size=tuple(wanted),
        align_corners=align_corners,
        half_pixel_centers=not align_corners,
    )
    return r.nchw(last)


def _factors(scales: Sequence[object], count: int) -> list[float | None]:
    """The scale of each axis, however the operator spells them; None for out / in."""
    flat: list[object] = []
    for scale in scales:
        flat.extend(scale if isinstance(scale, list | tuple) else [scale])
    given = [float(scale) if isinstance(scale, int | float) else None for scale in flat]
    return (given + [None] * count)[:count]


def _is_plain(sizes: Sequence[int], wanted: Sequence[int], factors: Sequence[float | None]) -> bool:
    """Whether torch's step between samples is in / out, the only one that the kernel has."""
    return all(
        factor is None or factor <= 0 or abs(1 / factor - size / want) < 1e-6
        for size, want, factor in zip(sizes, wanted, factors, strict=True)
    )


def _by_products(
    r: Rewriter, x: Value, wanted: Sequence[int], factors: Sequence[float | None], corners: bool
) -> Value:
    if r.out is not None:
        raise NoIntegerForm("RESIZE_BILINEAR knows only steps of input size over output size")
    for axis, (want, factor) in enumerate(zip(wanted, factors, strict=True), start=2):
        size = r.shape(x)[axis]
        if size != want or factor is not None:
            x = along_axis(r, x, axis, linear_weights(size, want, factor, corners))
    return x


def linear_weights(size: int, wanted: int, factor: float | None, corners: bool) -> torch.Tensor:
    """The matrix [in, out] of linear interpolation, as torch's own kernel has it."""
    identity = torch.eye(size).unsqueeze(0)
    if corners or factor is None:
        return torch.nn.functional.interpolate(
            identity, size=wanted, mode="linear", align_corners=corners
        )[0]
    return torch.nn.functional.interpolate(
        identity, scale_factor=factor, mode="linear", align_corners=False
    )[0]


@legalize(aten.upsample_linear1d.default, aten.upsample_linear1d.vec)
def upsample_linear1d(
    r: Rewriter, x: Value, size: Sequence[int] | None, align_corners: bool, *scales: object
) -> Value:
    """One exact product."""
    return _by_products(r, x, r.result_shape[2:], _factors(scales, 1), align_corners)


@legalize(
    aten.upsample_nearest2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest1d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest3d.default,
    aten.upsample_nearest3d.vec,
    aten._upsample_nearest_exact1d.default,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact2d.vec,
    moves=True,
)
def upsample_nearest(
    r: Rewriter, x: Value, size: Sequence[int] | None = None, *scales: object
) -> Value:
    """RESIZE_NEAREST_NEIGHBOR where it picks torch's cells, else one GATHER an axis."""
    sizes, wanted = r.shape(x)[2:], r.result_shape[2:]
    picks = [
        _picked(r, n, size, want, scales)
        for n, (size, want) in enumerate(zip(sizes, wanted, strict=True))
    ]
    centers = "exact" in str(r.core.target) if r.core is not None else False
    if len(sizes) < 3 and all(
        pick == _kernel_picks(size, want, centers)
        for pick, size, want in zip(picks, sizes, wanted, strict=True)
    ):
        full = (1, *wanted) if len(wanted) == 1 else tuple(wanted)
        last = r.emit(
            tfl.resize_nearest_neighbor,
            as_image(r, x),
            size=full,
            align_corners=False,
            half_pixel_centers=centers,
        )
        return from_image(r, last, x)
    for axis, pick in enumerate(picks, start=2):
        name = f"{r.origin.name if r.origin is not None else 'resize'}.cells{axis}"
        x = r.emit(tfl.gather, x, Constant(name, torch.tensor(pick, dtype=torch.int32)), axis=axis)
    return x


def _picked(
    r: Rewriter, number: int, size: int, wanted: int, scales: Sequence[object]
) -> list[int]:
    """The cells that torch takes, asked of torch's own kernel."""
    factor = _factors(scales, number + 1)[number]
    ramp = torch.arange(size, dtype=torch.float32).reshape(1, 1, size)
    exact = r.core is not None and "exact" in str(r.core.target)
    function = (
        torch.ops.aten._upsample_nearest_exact1d if exact else torch.ops.aten.upsample_nearest1d
    )
    return [int(cell) for cell in function(ramp, [wanted], factor).reshape(-1).tolist()]


def _kernel_picks(size: int, wanted: int, centers: bool) -> list[int]:
    """The cells that the TFLite kernel takes."""
    step = torch.tensor(size / wanted, dtype=torch.float32)
    places = torch.arange(wanted, dtype=torch.float32)
    cells = torch.floor((places + 0.5) * step) if centers else torch.floor(places * step)
    return [min(int(cell), size - 1) for cell in cells.tolist()]


@legalize(
    aten.upsample_bicubic2d.default,
    aten.upsample_bicubic2d.vec,
    aten._upsample_bicubic2d_aa.default,
    aten._upsample_bicubic2d_aa.vec,
    aten._upsample_bilinear2d_aa.default,
    aten._upsample_bilinear2d_aa.vec,
)
def upsample_separable(
    r: Rewriter, x: Value, size: Sequence[int] | None, align_corners: bool, *scales: object
) -> Value:
    """One exact product an axis, its weights asked of torch's own kernel."""
    assert r.core is not None
    function = getattr(aten, str(r.core.target).split(".")[1]).default
    factors = _factors(scales, 2)
    for axis, (want, factor) in enumerate(zip(r.result_shape[2:], factors, strict=True), start=2):
        extent = r.shape(x)[axis]
        # A width of 1 would pass for channels-last memory and be read wrongly.
        identity = torch.eye(extent).reshape(1, extent, extent, 1).repeat(1, 1, 1, 4)
        weights = function(identity, [want, 4], align_corners, factor, None)[0, :, :, 0]
        x = along_axis(r, x, axis, weights)
    return x
