"""Rules of pools: the windows that torch counts, written as explicit pads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fxquant.backends.lowering.constants import Value
from fxquant.backends.onnx.dialect import convolution as ops
from fxquant.backends.onnx.dialect import elementwise, movement, reductions
from fxquant.ir.aten import aten

from .convolution import batched
from .registry import legalize
from .rewriter import Rewriter, Unsupported

Sizes = Sequence[int]


class Windows(NamedTuple):
    """The windows of a pool by dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def overhang(self, sizes: Sizes, ceil_mode: bool) -> tuple[int, ...]:
        """By how much the last windows reach beyond the padded end."""
        return tuple(_overhang(*each, ceil_mode) for each in zip(sizes, *self, strict=True))


def _overhang(size: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> int:
    span = dilation * (kernel - 1) + 1
    room = size + 2 * pad - span
    count = (room + stride - 1 if ceil else room) // stride + 1
    if ceil and (count - 1) * stride >= size + pad:
        count -= 1  # a window that starts behind the end is dropped
    return max((count - 1) * stride + span - size - 2 * pad, 0)


def _windows(
    kernel: Sizes, stride: Sizes | None, padding: Sizes | int, dilation: Sizes | int
) -> Windows:
    rank = len(kernel)

    def full(sizes: Sizes | int) -> tuple[int, ...]:
        found = (sizes,) if isinstance(sizes, int) else tuple(sizes)
        return found * rank if len(found) == 1 else found

    return Windows(tuple(kernel), full(stride or kernel), full(padding), full(dilation))


def _max_pool(rank: int) -> Callable[..., Value]:
    def rule(
        r: Rewriter,
        x: Value,
        kernel: Sizes,
        stride: Sizes | None = None,
        padding: Sizes | int = 0,
        dilation: Sizes | int = 1,
        ceil_mode: bool = False,
    ) -> Value:
        """MaxPool; what is padded never wins, so that the overhang is padding too."""
        windows = _windows(kernel, stride, padding, dilation)
        x, back = batched(r, x, rank + 2)
        extra = windows.overhang(r.shape(x)[2:], ceil_mode)
        ends = tuple(p + e for p, e in zip(windows.padding, extra, strict=True))
        pads = windows.padding + ends
        found = r.emit(
            ops.max_pool,
            x,
            kernel_shape=windows.kernel,
            strides=windows.stride,
            pads=pads,
            dilations=windows.dilation,
        )
        return back(found)

    return rule


def _average_pool(rank: int) -> Callable[..., Value]:
    def rule(
        r: Rewriter,
        x: Value,
        kernel: Sizes,
        stride: Sizes | None = None,
        padding: Sizes | int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Value:
        """AveragePool; zeros that count are padded before, the overhang never counts."""
        windows = _windows(kernel, stride, padding, 1)
        x, back = batched(r, x, rank + 2)
        extra = windows.overhang(r.shape(x)[2:], ceil_mode)
        begins, counts = windows.padding, bool(count_include_pad)
        if divisor_override is not None and any(extra):
            raise Unsupported("divisor_override with windows that reach beyond the end")
        if counts and any(begins) and any(extra):
            x = r.emit(movement.pad, x, (0, 0, *begins) * 2, 0.0)
            begins, counts = (0,) * rank, False
        ends = tuple(p + e for p, e in zip(begins, extra, strict=True))
        found = r.emit(
            ops.average_pool,
            x,
            kernel_shape=windows.kernel,
            strides=windows.stride,
            pads=begins + ends,
            count_include_pad=int(counts and any(begins)),
        )
        if divisor_override is not None:
            found = r.emit(elementwise.mul, found, math.prod(kernel) / divisor_override)
        return back(found)

    return rule


for _rank, _max, _average in (
    (1, aten.max_pool1d.default, aten.avg_pool1d.default),
    (2, aten.max_pool2d.default, aten.avg_pool2d.default),
    (3, aten.max_pool3d.default, aten.avg_pool3d.default),
):
    legalize(_max, moves=True)(_max_pool(_rank))
    legalize(_average)(_average_pool(_rank))


def _adaptive(rank: int, average: bool) -> Callable[..., Value]:
    def rule(r: Rewriter, x: Value, size: Sizes) -> Value:
        """A pool of equal windows; GlobalAveragePool to one element."""
        x, back = batched(r, x, rank + 2)
        sizes = r.shape(x)[2:]
        if any(extent % wanted for extent, wanted in zip(sizes, size, strict=True)):
            return back(_unequal(r, x, tuple(size), average))
        if average and all(wanted == 1 for wanted in size):
            return back(r.emit(ops.global_average_pool, x))
        kernel = tuple(extent // wanted for extent, wanted in zip(sizes, size, strict=True))
        pool = _average_pool(rank) if average else _max_pool(rank)
        return back(pool(r, x, kernel))

    return rule


def _unequal(r: Rewriter, x: Value, size: tuple[int, ...], average: bool) -> Value:
    """Windows of different sizes: one dimension after the other, slice by slice."""
    reduce = reductions.reduce_mean if average else reductions.reduce_max
    for number, wanted in enumerate(size):
        axis = number + 2
        extent = r.shape(x)[axis]
        if extent == wanted:
            continue
        bounds = [
            (index * extent // wanted, -(-(index + 1) * extent // wanted))
            for index in range(wanted)
        ]
        parts = [
            r.emit(reduce, r.emit(movement.slice, x, (a,), (b,), (axis,), (1,)), (axis,))
            for a, b in bounds
        ]
        x = r.emit(movement.concat, parts, axis=axis)
    return x


legalize(aten.adaptive_avg_pool1d.default)(_adaptive(1, True))
legalize(aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default)(_adaptive(2, True))
legalize(aten.adaptive_avg_pool3d.default, aten._adaptive_avg_pool3d.default)(_adaptive(3, True))


def _adaptive_max(rank: int) -> Callable[..., tuple[Value, None]]:
    def rule(r: Rewriter, x: Value, size: Sizes) -> tuple[Value, None]:
        return _adaptive(rank, False)(r, x, size), None

    return rule


legalize(aten.adaptive_max_pool1d.default, moves=True)(_adaptive_max(1))
legalize(aten.adaptive_max_pool2d.default, moves=True)(_adaptive_max(2))
legalize(aten.adaptive_max_pool3d.default, moves=True)(_adaptive_max(3))


@legalize(aten.max_pool2d_with_indices.default, moves=True)
def max_pool2d_with_indices(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes | None = None,
    padding: Sizes | int = 0,
    dilation: Sizes | int = 1,
    ceil_mode: bool = False,
) -> tuple[Value, None]:
    """MaxPool, as long as nothing reads the indices."""
    return _max_pool(2)(r, x, kernel, stride, padding, dilation, ceil_mode), None
