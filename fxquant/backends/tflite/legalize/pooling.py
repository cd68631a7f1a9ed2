"""Pooling over windows: MAX_POOL_2D, AVERAGE_POOL_2D, MEAN for whole maps.

avg_pool2d(x) {kernel=3, padding=1, count_include_pad}   ->   pad, average_pool_2d {VALID}
adaptive_avg_pool2d(x) {output_size=[1,1]}               ->   mean {keep_dims}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .convolution import pad_spatial
from .grids import quantize_constant
from .registry import legalize
from .rewriter import NoIntegerForm, Rewriter, Unsupported
from .values import Constant, Value
from .windows import Pads, Window, padding_of, several, windows

Sizes = int | Sequence[int]


@legalize(aten.max_pool2d.default, moves=True)
def max_pool2d(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Value:
    """MAX_POOL_2D on channels-last data."""
    return _batched(
        r, x, 3, lambda whole: max_images(r, whole, kernel, stride, padding, dilation, ceil_mode)
    )


@legalize(aten.max_pool1d.default, moves=True)
def max_pool1d(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Value:
    """MAX_POOL_2D over an image of one row."""
    return _batched(
        r, x, 2, lambda whole: max_images(r, whole, kernel, stride, padding, dilation, ceil_mode)
    )


def _batched(r: Rewriter, x: Value, rank: int, run: object) -> Value:
    """Run on a batch of one where there is no batch dimension."""
    if len(r.shape(x)) != rank:
        return run(x)  # type: ignore[operator,no-any-return]
    result = run(r.reshape(x, (1, *r.shape(x))))  # type: ignore[operator]
    return r.reshape(result, r.shape(result)[1:])


def max_images(
    r: Rewriter, x: Value, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool
) -> Value:
    found = _pool_windows(r, x, kernel, stride, padding, dilation, ceil)
    last = as_image(r, x)
    if any(each.dilation > 1 for each in found):
        return from_image(r, _dilated_max(r, last, found), x)
    padding_name, pads = padding_of(found)
    last = pad_with_least(r, last, pads)
    return from_image(r, _pool(r, tfl.max_pool_2d, last, found, padding_name), x)


def _pool_windows(
    r: Rewriter, x: Value, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool
) -> list[Window]:
    sizes = r.shape(x)[2:]
    count = len(sizes)
    kernels = several(kernel, count)
    strides = (
        several(stride, count) if stride != () and stride != [] and stride is not None else kernels
    )
    found = windows(
        sizes, kernels, strides, several(padding, count), several(dilation, count), ceil_mode=ceil
    )
    return [Window(1, 1, 1, 1, 0, 1), *found] if count == 1 else found


def as_image(r: Rewriter, x: Value) -> Value:
    """Channels last; a sequence becomes an image of one row."""
    last = r.nhwc(x)
    if len(r.shape(x)) == 3:
        return r.reshape(last, (r.shape(last)[0], 1, *r.shape(last)[1:]))
    return last


def from_image(r: Rewriter, result: Value, like: Value) -> Value:
    """Back from channels last to the rank of `like`, channels first."""
    if len(r.shape(like)) == 3:
        batch, _, length, channels = r.shape(result)
        result = r.reshape(result, (batch, length, channels))
    return r.nchw(result)


def _pool(r: Rewriter, function: object, x: Value, found: list[Window], padding: str) -> Value:
    return r.emit(
        function,  # type: ignore[arg-type]
        x,
        padding=padding,
        stride_h=found[0].stride,
        stride_w=found[1].stride,
        filter_height=found[0].kernel,
        filter_width=found[1].kernel,
    )


def least_value(r: Rewriter, x: Value) -> Constant:
    """The value that no maximum takes, as a constant of the type of `x`."""
    kind = r.qtype(x)
    if kind is not None:
        return quantize_constant(r.scalar(-3.0e38), kind)
    dtype = r.dtype(x)
    low = float("-inf") if dtype.is_floating_point else torch.iinfo(dtype).min
    return Constant(
        f"{r.origin.name if r.origin else 'pool'}.least", torch.tensor(low, dtype=dtype)
    )


def pad_with_least(r: Rewriter, x: Value, pads: Pads) -> Value:
    """Padding that no maximum takes: PAD with zeros behind a RELU, else PADV2."""
    if not any(before or after for before, after in pads):
        return x
    if _is_not_negative(r, x):
        return pad_spatial(r, x, pads)
    least = least_value(r, x)
    return r.emit(tfl.padv2, x, paddings=((0, 0), *pads, (0, 0)), constant_values=least)


NOT_NEGATIVE = frozenset({"relu", "relu6", "relu_0_to_1", "logistic", "abs", "exp", "softmax"})
KEEPS_SIGN = frozenset(
    {
        "quantize",
        "dequantize",
        "transpose",
        "reshape",
        "max_pool_2d",
        "slice",
        "average_pool_2d",
        "concatenation",
    }
)


def _is_not_negative(r: Rewriter, x: Value) -> bool:
    kind = r.qtype(x)
    if kind is not None and kind.zero_point == torch.iinfo(kind.torch_dtype).min:
        return True  # zero is the least integer
    if isinstance(x, Constant):
        return False
    name = getattr(x.target, "__name__", "")
    if name in KEEPS_SIGN:
        return all(_is_not_negative(r, operand) for operand in x.all_input_nodes)
    return name in NOT_NEGATIVE


def _dilated_max(r: Rewriter, x: Value, found: list[Window]) -> Value:
    """The maximum of shifted copies, one for each cell of the window."""
    pads = tuple((each.before, each.after) for each in found)
    x = pad_with_least(r, x, pads)
    result: Value | None = None
    rows, columns = found
    batch, _, _, channels = r.shape(x)
    for i in range(rows.kernel):
        for j in range(columns.kernel):
            part = strided(
                r, x, [(0, batch, 1), _cells(rows, i), _cells(columns, j), (0, channels, 1)]
            )
            result = part if result is None else r.emit(tfl.maximum, result, part)
    assert result is not None
    return result


def _cells(each: Window, number: int) -> tuple[int, int, int]:
    start = number * each.dilation
    return start, start + (each.places - 1) * each.stride + 1, each.stride


def strided(r: Rewriter, x: Value, ranges: Sequence[tuple[int, int, int]]) -> Value:
    """A part along every axis: SLICE where all steps are 1, else STRIDED_SLICE."""
    shape = r.shape(x)
    if all(
        (start, stop, step) == (0, size, 1)
        for (start, stop, step), size in zip(ranges, shape, strict=True)
    ):
        return x
    begin = tuple(start for start, _, _ in ranges)
    if isinstance(x, Constant):
        data = x.data[tuple(slice(*each) for each in ranges)]
        return Constant(x.name, data, x.quantization)
    if all(step == 1 for _, _, step in ranges):
        return r.emit(
            tfl.slice, x, begin=begin, size=tuple(stop - start for start, stop, _ in ranges)
        )
    return r.emit(
        tfl.strided_slice,
        x,
        begin=begin,
        end=tuple(stop for _, stop, _ in ranges),
        strides=tuple(step for _, _, step in ranges),
    )


@legalize(aten.avg_pool2d.default, moves=True)
def avg_pool2d(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    """AVERAGE_POOL_2D; SAME leaves padded cells out of the count, explicit zeros are counted."""
    return _batched(
        r,
        x,
        3,
        lambda whole: average_images(
            r, whole, kernel, stride, padding, ceil_mode, count_include_pad, divisor
        ),
    )


@legalize(aten.avg_pool1d.default, moves=True)
def avg_pool1d(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    """AVERAGE_POOL_2D over an image of one row."""
    return _batched(
        r,
        x,
        2,
        lambda whole: average_images(
            r, whole, kernel, stride, padding, ceil_mode, count_include_pad, None
        ),
    )


def average_images(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil: bool,
    include: bool,
    divisor: float | None,
) -> Value:
    """The average over windows of channels-first images."""
    found = _pool_windows(r, x, kernel, stride, padding, 1, ceil)
    pads = several(padding, len(r.shape(x)) - 2)
    pads = (0, *pads) if len(pads) == 1 else pads
    name, explicit = padding_of(found)
    last = as_image(r, x)
    if name == "VALID" and not explicit and divisor is None:
        return from_image(r, _pool(r, tfl.average_pool_2d, last, found, "VALID"), x)
    if name == "SAME" and divisor is None and (not include or not any(pads)):
        return from_image(r, _pool(r, tfl.average_pool_2d, last, found, "SAME"), x)
    full = tuple((each.before, each.after) for each in found)
    sums = _pool(r, tfl.average_pool_2d, pad_spatial(r, last, full), found, "VALID")
    factor = _correction(found, pads, include, divisor)
    if not bool((factor == 1).all()):
        if r.out is not None:
            raise NoIntegerForm("its windows count cells otherwise than AVERAGE_POOL_2D does")
        sums = r.emit(tfl.mul, sums, r.constant(factor, "correction"))
    return from_image(r, sums, x)


def _correction(
    found: list[Window], pads: Sequence[int], include: bool, divisor: float | None
) -> torch.Tensor:
    """What an average over all cells of a window is multiplied by to be torch's."""
    cells = found[0].kernel * found[1].kernel
    if divisor is not None:
        return torch.tensor(cells / divisor)
    counts = [_counts(each, pad if include else 0) for each, pad in zip(found, pads, strict=True)]
    return (cells / (counts[0][:, None] * counts[1][None, :]))[None, :, :, None].float()


def _counts(each: Window, pad: int) -> torch.Tensor:
    """How many cells of each window count: those of the input and of `pad` cells around it."""
    starts = torch.arange(each.places) * each.stride - each.before
    ends = (starts + each.kernel).clamp(max=each.size + pad)
    return (ends - starts.clamp(min=-pad)).double()


@legalize(
    aten.adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    quantized=True,
)
def adaptive_avg_pool(r: Rewriter, x: Value, output_size: Sizes) -> Value:
    """MEAN for one cell, AVERAGE_POOL_2D where the size divides, else one product an axis."""
    spatial = 1 if r.core is not None and "1d" in str(r.core.target) else 2
    wanted = several(output_size, spatial)
    return _batched(r, x, spatial + 1, lambda whole: adaptive_images(r, whole, wanted))


def adaptive_images(r: Rewriter, x: Value, wanted: Sequence[int]) -> Value:
    sizes = r.shape(x)[2:]
    wanted = tuple(wanted)
    if tuple(sizes) == tuple(wanted):
        return x if r.out is None else r.quantize(x, r.out)
    if all(want == 1 for want in wanted):
        axes = tuple(range(1, 1 + len(sizes)))
        return r.nchw(r.emit(tfl.mean, r.nhwc(x), axis=axes, keep_dims=True, out=r.out))
    if all(size % want == 0 for size, want in zip(sizes, wanted, strict=True)):
        found = [
            Window(size, size // want, size // want, 1, 0, want)
            for size, want in zip(sizes, wanted, strict=True)
        ]
        found = [Window(1, 1, 1, 1, 0, 1), *found] if len(found) == 1 else found
        result = from_image(r, _pool(r, tfl.average_pool_2d, as_image(r, x), found, "VALID"), x)
        return result if r.out is None else r.quantize(result, r.out)
    if r.out is not None:
        raise NoIntegerForm("its output size does not divide the input's")
    for axis, (size, want) in enumerate(zip(sizes, wanted, strict=True), start=2):
        if size != want:
            x = along_axis(r, x, axis, _adaptive_weights(size, want))
    return x


def along_axis(r: Rewriter, x: Value, axis: int, weights: torch.Tensor) -> Value:
    """A matrix [in, out] applied along one axis, exactly as a dense layer."""
    last, back = r.move_last(x, axis)
    matrix = r.constant(weights.t().contiguous(), f"axis{axis}")
    result = r.emit(tfl.fully_connected, last, matrix, None, keep_num_dims=len(r.shape(last)) > 2)
    return back(result)


def adaptive_ranges(size: int, wanted: int) -> list[tuple[int, int]]:
    """The cells that each result averages.

    >>> adaptive_ranges(5, 3)
    [(0, 2), (1, 4), (3, 5)]
    """
    return [(n * size // wanted, -(-(n + 1) * size // wanted)) for n in range(wanted)]


def _adaptive_weights(size: int, wanted: int) -> torch.Tensor:
    weights = torch.zeros(size, wanted)
    for place, (start, stop) in enumerate(adaptive_ranges(size, wanted)):
        weights[start:stop, place] = 1 / (stop - start)
    return weights


@legalize(aten.adaptive_max_pool2d.default)
def adaptive_max_pool2d(r: Rewriter, x: Value, output_size: Sizes) -> tuple[Value, None]:
    """MAX_POOL_2D where the size divides, else REDUCE_MAX for each cell; without indices."""
    sizes = r.shape(x)[-2:]
    wanted = several(output_size, 2)
    if len(r.shape(x)) == 3:
        raise Unsupported("adaptive max pooling without a batch dimension")
    if all(size % want == 0 for size, want in zip(sizes, wanted, strict=True)):
        kernel = [size // want for size, want in zip(sizes, wanted, strict=True)]
        return max_images(r, x, kernel, kernel, 0, 1, False), None
    for axis, (size, want) in enumerate(zip(sizes, wanted, strict=True), start=2):
        parts = [
            r.emit(
                tfl.reduce_max, r.slice(x, axis, start, stop - start), axis=(axis,), keep_dims=True
            )
            for start, stop in adaptive_ranges(size, want)
        ]
        x = parts[0] if len(parts) == 1 else r.emit(tfl.concatenation, parts, axis=axis)
    return x, None


@legalize(aten.max_pool2d_with_indices.default, moves=True)
def max_pool2d_with_indices(
    r: Rewriter,
    x: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> tuple[Value, None]:
    """MAX_POOL_2D; the indices are not to be had."""
    return max_pool2d(r, x, kernel, stride, padding, dilation, ceil_mode), None
