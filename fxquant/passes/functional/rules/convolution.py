"""Convolutions with all numbers written out.

conv2d(x, w, padding="same")   -> conv2d(x, w, b, [1,1], [1,1]), or a pad before the conv
"""

from __future__ import annotations

from typing import Any

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule

_OVERLOADS = {
    "conv1d": aten.conv1d.default,
    "conv2d": aten.conv2d.default,
    "conv3d": aten.conv3d.default,
}
_LISTS = ("stride", "padding", "dilation", "output_padding")


@rule("conv1d", "conv2d", "conv3d")
def conv(engine: Engine, call: Call) -> Any:
    """conv2d(x, weight, bias, stride, padding, dilation, groups)"""
    named = dict(call.named)
    rank = named["weight"].dim() - 2
    _full_length(named, rank)
    if named["padding"] == "valid":
        named["padding"] = [0] * rank
    if named["padding"] == "same":
        kernel = named["weight"].shape[2:]
        total = [(k - 1) * d for k, d in zip(kernel, named["dilation"], strict=True)]
        named["padding"] = [each // 2 for each in total]
        if any(each % 2 for each in total):
            # The odd one goes to the end: pad there first, then as on both sides.
            pad = [side for each in reversed(total) for side in (0, each % 2)]
            named["input"] = engine.call(aten.constant_pad_nd.default, named["input"], pad)
    return engine.apply(_OVERLOADS[call.name], named)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(engine: Engine, call: Call) -> Any:
    """conv_transpose2d.input(x, weight, bias, stride, padding, output_padding, groups, dilation)"""
    named = dict(call.named)
    _full_length(named, named["weight"].dim() - 2)
    return engine.apply(call.target, named, call.result)


def _full_length(named: dict[str, Any], rank: int) -> None:
    """One number in a list stands for every spatial dimension."""
    for name in _LISTS:
        value = named.get(name)
        if isinstance(value, list) and len(value) == 1:
            named[name] = value * rank
