"""Rules of convolutions: weights and layout are torch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch._ops import OpOverload

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import convolution as ops
from fxquant.ir.aten import aten

from .registry import legalize
from .rewriter import Rewriter
from .weights import bias_of

Sizes = Sequence[int]


def _full(sizes: Sizes | int, rank: int, usual: int) -> tuple[int, ...]:
    """One number a dimension."""
    found = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return (found or (usual,)) * rank if len(found) < 2 else found


def batched(r: Rewriter, x: Value, rank: int) -> tuple[Value, Callable[[Value], Value]]:
    """The value with a batch dimension, and the function that takes it off the result."""
    if r.rank(x) == rank:
        return x, lambda result: result
    return r.reshape(x, (1, *r.shape(x))), lambda result: r.reshape(result, r.shape(result)[1:])


def _convolution(rank: int) -> Callable[..., Value]:
    def rule(
        r: Rewriter,
        x: Value,
        weight: Value,
        bias: Value | None = None,
        stride: Sizes | int = 1,
        padding: Sizes | int = 0,
        dilation: Sizes | int = 1,
        groups: int = 1,
    ) -> Value:
        """Conv."""
        bias = bias_of(r, x, weight, bias)
        x, back = batched(r, x, rank + 2)
        found = r.emit(
            ops.conv,
            *(x, weight) if bias is None else (x, weight, bias),
            strides=_full(stride, rank, 1),
            pads=_full(padding, rank, 0) * 2,
            dilations=_full(dilation, rank, 1),
            group=groups,
        )
        return back(found)

    return rule


def _transposed(rank: int) -> Callable[..., Value]:
    def rule(
        r: Rewriter,
        x: Value,
        weight: Value,
        bias: Value | None = None,
        stride: Sizes | int = 1,
        padding: Sizes | int = 0,
        output_padding: Sizes | int = 0,
        groups: int = 1,
        dilation: Sizes | int = 1,
    ) -> Value:
        """ConvTranspose."""
        bias = bias_of(r, x, weight, bias, groups)
        x, back = batched(r, x, rank + 2)
        found = r.emit(
            ops.conv_transpose,
            *(x, weight) if bias is None else (x, weight, bias),
            strides=_full(stride, rank, 1),
            pads=_full(padding, rank, 0) * 2,
            dilations=_full(dilation, rank, 1),
            output_padding=_full(output_padding, rank, 0),
            group=groups,
        )
        return back(found)

    return rule


CONVOLUTIONS: dict[OpOverload, int] = {
    aten.conv1d.default: 1,
    aten.conv2d.default: 2,
    aten.conv3d.default: 3,
}
TRANSPOSED: dict[OpOverload, int] = {
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 2,
    aten.conv_transpose3d.input: 3,
}
for _operator, _rank in CONVOLUTIONS.items():
    legalize(_operator)(_convolution(_rank))
for _operator, _rank in TRANSPOSED.items():
    legalize(_operator)(_transposed(_rank))


@legalize(aten.convolution.default)
def convolution(
    r: Rewriter,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Value:
    """What decompositions make of all convolutions."""
    rank = r.rank(weight) - 2
    if transposed:
        return _transposed(rank)(
            r, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return _convolution(rank)(r, x, weight, bias, stride, padding, dilation, groups)
