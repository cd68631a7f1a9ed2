"""Rules of resizing: Resize with torch's coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch._ops import OpOverload

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import convolution as ops
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Rewriter

Scales = tuple[float | None, ...]


def _resize(r: Rewriter, x: Value, size: Sequence[int], scales: Scales, **options: object) -> Value:
    """By the scales where they are given, since they set the coordinates; else to a size."""
    batch = r.shape(x)[:2]
    factors = [scale for scale in scales if scale is not None]
    exact = len(factors) == len(size) and all(
        int(extent * factor) == wanted
        for extent, factor, wanted in zip(r.shape(x)[2:], factors, size, strict=True)
    )
    if exact:
        return r.emit(ops.resize, x, None, (1.0, 1.0, *map(float, factors)), **options)
    return r.emit(ops.resize, x, None, None, (*batch, *size), **options)


def _nearest(exact: bool) -> Callable[..., Value]:
    coordinates = "half_pixel" if exact else "asymmetric"
    rounding = "round_prefer_ceil" if exact else "floor"

    def rule(r: Rewriter, x: Value, size: Sequence[int], *scales: float | None) -> Value:
        """Resize, nearest."""
        return _resize(
            r,
            x,
            size,
            scales,
            coordinate_transformation_mode=coordinates,
            nearest_mode=rounding,
        )

    return rule


def _smooth(mode: str) -> Callable[..., Value]:
    def rule(
        r: Rewriter, x: Value, size: Sequence[int], align: bool, *scales: float | None
    ) -> Value:
        """Resize, linear or cubic."""
        coordinates = "align_corners" if align else "half_pixel"
        given = () if align else scales  # corners alone set the coordinates
        return _resize(r, x, size, given, mode=mode, coordinate_transformation_mode=coordinates)

    return rule


def _by_factors(rule: Callable[..., Value]) -> Callable[..., Value]:
    def by_factors(r: Rewriter, x: Value, size: None, *rest: object) -> Value:
        """The form without a size."""
        *options, factors = rest
        assert isinstance(factors, list)
        return rule(r, x, r.result_shape[2:], *options, *factors)

    return by_factors


NEAREST: dict[OpOverload, bool] = {
    aten.upsample_nearest1d.default: False,
    aten.upsample_nearest2d.default: False,
    aten.upsample_nearest3d.default: False,
    aten._upsample_nearest_exact1d.default: True,
    aten._upsample_nearest_exact2d.default: True,
    aten._upsample_nearest_exact3d.default: True,
}
SMOOTH: dict[OpOverload, str] = {
    aten.upsample_linear1d.default: "linear",
    aten.upsample_bilinear2d.default: "linear",
    aten.upsample_trilinear3d.default: "linear",
    aten.upsample_bicubic2d.default: "cubic",
}
for _operator, _exact in NEAREST.items():
    legalize(_operator, moves=True)(_nearest(_exact))
    legalize(_operator.overloadpacket.vec, moves=True)(_by_factors(_nearest(_exact)))
for _operator, _mode in SMOOTH.items():
    legalize(_operator)(_smooth(_mode))
    legalize(_operator.overloadpacket.vec)(_by_factors(_smooth(_mode)))
