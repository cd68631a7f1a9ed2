"""Interpolation with its output size written out.

    F.interpolate(x, scale_factor=2)   -> upsample_nearest2d(x, [16,16], 2.0, 2.0)
    F.interpolate(x, (16, 16))         -> upsample_nearest2d(x, [16,16])

A scale that the user gave is kept: kernels use it in place of the quotient of the sizes.
"""

from __future__ import annotations

from typing import Any

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule
from fxquant.passes.functional.schema import bind


@rule(
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip
def upsample(engine: Engine, call: Call) -> Any:
    """upsample_bilinear2d(x, output_size, align_corners, scales_h, scales_w)"""
    target = getattr(aten, call.name).default
    if call.target is target:
        return engine.apply(target, call.named, call.result)
    source = call["input"]
    size = list(call.result.shape[2:])
    scales = call["scale_factors"] or [None] * len(size)
    align = [call["align_corners"]] if "align_corners" in call.named else []
    named = bind(target, (source, size, *align, *scales), {})
    return engine.apply(target, named, call.result)
