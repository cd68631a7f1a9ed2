"""Shapes and dtypes of the dialect's operators, computed without running them.

    conv_2d(f32[1,8,8,3], f32[16,3,3,3]) {stride_h=2, stride_w=2}  ->  f32[1,4,4,16]

One small function per operator, looked up by name; what has none keeps the first operand's type,
broadcast with the other operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fxquant.ir.types import TensorType

Shape = tuple[int, ...]
Types = Sequence[TensorType]
Options = Mapping[str, Any]
ShapeFunction = Callable[[Types, Options], Shape]

SHAPES: dict[str, ShapeFunction] = {}
BOOLEANS = """
equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not
reduce_any reduce_all
"""


def infer(name: str, types: Types, options: Options) -> list[TensorType]:
    """The types of an operator's results, quantization left out.

    >>> kind = TensorType((1, 8, 8, 3), torch.float32)
    >>> str(infer("transpose", [kind], {"perm": (0, 3, 1, 2)})[0])
    'f32[1,3,8,8]'
    """
    if name in _SEVERAL:
        return _SEVERAL[name](types, options)
    shape = SHAPES.get(name, _broadcast)(types, options)
    return [TensorType(shape, _dtype(name, types, options))]


def _dtype(name: str, types: Types, options: Options) -> torch.dtype:
    if name in BOOLEANS.split():
        return torch.bool
    if name == "embedding_lookup" and types[1].quantization is not None:
        return torch.float32
    if name in _PRIMARY:
        return types[_PRIMARY[name]].dtype
    for option in ("out_data_type", "output_type"):
        if option in options:
            return dtype_called(options[option])
    if name == "arg_max" or name == "arg_min":
        return torch.int64
    return types[0].dtype


_PRIMARY = {"select_v2": 1, "one_hot": 1, "embedding_lookup": 1, "scatter_nd": 1}


def dtype_called(name: str | torch.dtype) -> torch.dtype:
    """The dtype of a name such as `"int32"`."""
    if isinstance(name, torch.dtype):
        return name
    found = getattr(torch, name.lower())
    assert isinstance(found, torch.dtype)
    return found


def shape_of(*names: str) -> Callable[[ShapeFunction], ShapeFunction]:
    """Register the shape function of operators; a decorator."""

    def register(function: ShapeFunction) -> ShapeFunction:
        SHAPES.update(dict.fromkeys(names, function))
        return function

    return register


def _broadcast(types: Types, options: Options) -> Shape:
    if len(types) == 1:
        return types[0].shape
    return broadcast_shapes([kind.shape for kind in types])


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """The shape that operands of these shapes broadcast to.

    >>> broadcast_shapes([(2, 1, 3), (4, 1)])
    (2, 4, 3)
    """
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded, strict=True))


def window(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """How many places a window has along one axis.

    >>> window(8, 3, 2, 1, "SAME"), window(8, 3, 2, 1, "VALID")
    (4, 3)
    """
    if padding == "SAME":
        return math.ceil(size / stride)
    return (size - (kernel - 1) * dilation - 1) // stride + 1


@shape_of("conv_2d")
def _conv_2d(types: Types, options: Options) -> Shape:
    batch, height, width, _ = types[0].shape
    channels, kernel_h, kernel_w, _ = types[1].shape
    padding = options.get("padding", "SAME")
    return (
        batch,
        window(
            height,
            kernel_h,
            options.get("stride_h", 1),
            options.get("dilation_h_factor", 1),
            padding,
        ),
        window(
            width,
            kernel_w,
            options.get("stride_w", 1),
            options.get("dilation_w_factor", 1),
            padding,
        ),
        channels,
    )


@shape_of("depthwise_conv_2d")
def _depthwise(types: Types, options: Options) -> Shape:
    shape = _conv_2d(types, options)
    return (*shape[:3], types[1].shape[3])


@shape_of("conv_3d")
def _conv_3d(types: Types, options: Options) -> Shape:
    batch, *sizes, _ = types[0].shape
    *kernel, _, channels = types[1].shape
    padding = options.get("padding", "SAME")
    places = (
        window(
            size,
            extent,
            options.get(f"stride_{n}", 1),
            options.get(f"dilation_{n}_factor", 1),
            padding,
        )
        for size, extent, n in zip(sizes, kernel, "dhw", strict=True)
    )
    return (batch, *places, channels)


@shape_of("average_pool_2d", "max_pool_2d", "l2_pool_2d")
def _pool(types: Types, options: Options) -> Shape:
    batch, height, width, channels = types[0].shape
    padding = options.get("padding", "SAME")
    return (
        batch,
        window(height, options["filter_height"], options.get("stride_h", 1), 1, padding),
        window(width, options["filter_width"], options.get("stride_w", 1), 1, padding),
        channels,
    )


@shape_of("transpose_conv", "conv_3d_transpose")
def _output_shape(types: Types, options: Options) -> Shape:
    return tuple(options["output_shape"])


@shape_of("fully_connected")
def _fully_connected(types: Types, options: Options) -> Shape:
    features, inputs = types[1].shape
    if options.get("keep_num_dims"):
        return (*types[0].shape[:-1], features)
    return (math.prod(types[0].shape) // inputs, features)


@shape_of("batch_matmul")
def _batch_matmul(types: Types, options: Options) -> Shape:
    left, right = types[0].shape, types[1].shape
    rows = left[-1] if options.get("adj_x") else left[-2]
    columns = right[-2] if options.get("adj_y") else right[-1]
    return (*broadcast_shapes([left[:-2], right[:-2]]), rows, columns)


@shape_of("reshape", "broadcast_to", "scatter_nd")
def _given_shape(types: Types, options: Options) -> Shape:
    shape = tuple(options["shape"])
    if -1 not in shape:
        return shape
    known = math.prod(size for size in shape if size != -1)
    return tuple(math.prod(types[0].shape) // known if size == -1 else size for size in shape)


@shape_of("transpose")
def _transpose(types: Types, options: Options) -> Shape:
    return tuple(types[0].shape[axis] for axis in options["perm"])


@shape_of("concatenation")
def _concatenation(types: Types, options: Options) -> Shape:
    shape = list(types[0].shape)
    axis = options["axis"] % len(shape)
    shape[axis] = sum(kind.shape[axis] for kind in types)
    return tuple(shape)


@shape_of("pack")
def _pack(types: Types, options: Options) -> Shape:
    shape = list(types[0].shape)
    shape.insert(options["axis"] % (len(shape) + 1), len(types))
    return tuple(shape)


@shape_of("slice")
def _slice(types: Types, options: Options) -> Shape:
    return tuple(options["size"])


@shape_of("strided_slice")
def _strided_slice(types: Types, options: Options) -> Shape:
    ranges = zip(types[0].shape, options["begin"], options["end"], options["strides"], strict=True)
    return tuple(
        len(range(*slice(start, end, step).indices(size))) for size, start, end, step in ranges
    )


@shape_of("pad", "padv2", "mirror_pad")
def _pad(types: Types, options: Options) -> Shape:
    return tuple(
        before + size + after
        for size, (before, after) in zip(types[0].shape, options["paddings"], strict=True)
    )


@shape_of("tile")
def _tile(types: Types, options: Options) -> Shape:
    return tuple(
        size * times for size, times in zip(types[0].shape, options["multiples"], strict=True)
    )


@shape_of("gather")
def _gather(types: Types, options: Options) -> Shape:
    shape, batch = types[0].shape, options.get("batch_dims", 0)
    axis = options.get("axis", 0) % len(shape)
    return (*shape[:axis], *types[1].shape[batch:], *shape[axis + 1 :])


@shape_of("gather_nd")
def _gather_nd(types: Types, options: Options) -> Shape:
    *outer, depth = types[1].shape
    return (*outer, *types[0].shape[depth:])


@shape_of("embedding_lookup")
def _embedding_lookup(types: Types, options: Options) -> Shape:
    return (*types[0].shape, *types[1].shape[1:])


@shape_of("one_hot")
def _one_hot(types: Types, options: Options) -> Shape:
    shape = list(types[0].shape)
    axis = options.get("axis", -1)
    shape.insert(len(shape) if axis == -1 else axis, options["depth"])
    return tuple(shape)


@shape_of("prelu", "dynamic_update_slice", "reverse_v2", "cumsum")
def _first(types: Types, options: Options) -> Shape:
    return types[0].shape


@shape_of("resize_bilinear", "resize_nearest_neighbor")
def _resize(types: Types, options: Options) -> Shape:
    return (types[0].shape[0], *options["size"], types[0].shape[3])


@shape_of("depth_to_space")
def _depth_to_space(types: Types, options: Options) -> Shape:
    batch, height, width, channels = types[0].shape
    block = options["block_size"]
    return (batch, height * block, width * block, channels // block**2)


@shape_of("space_to_depth")
def _space_to_depth(types: Types, options: Options) -> Shape:
    batch, height, width, channels = types[0].shape
    block = options["block_size"]
    return (batch, height // block, width // block, channels * block**2)


@shape_of("mean", "sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_any", "reduce_all")
def _reduce(types: Types, options: Options) -> Shape:
    shape = types[0].shape
    axes = {axis % len(shape) for axis in options["axis"]}
    if options.get("keep_dims"):
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


@shape_of("arg_max", "arg_min")
def _arg(types: Types, options: Options) -> Shape:
    shape = types[0].shape
    axis = options["axis"] % len(shape)
    return (*shape[:axis], *shape[axis + 1 :])


def _split(types: Types, options: Options) -> list[TensorType]:
    shape = list(types[0].shape)
    axis = options["axis"] % len(shape)
    sizes = options.get("size_splits")
    if sizes is None:
        count = options["num_splits"]
        sizes = [shape[axis] // count] * count
    return [TensorType((*shape[:axis], size, *shape[axis + 1 :]), types[0].dtype) for size in sizes]


def _unpack(types: Types, options: Options) -> list[TensorType]:
    shape = list(types[0].shape)
    axis = options["axis"] % len(shape)
    part = TensorType((*shape[:axis], *shape[axis + 1 :]), types[0].dtype)
    return [part] * shape[axis]


def _topk(types: Types, options: Options) -> list[TensorType]:
    shape = (*types[0].shape[:-1], options["k"])
    return [TensorType(shape, types[0].dtype), TensorType(shape, torch.int32)]


@shape_of("unidirectional_sequence_rnn")
def _sequence(types: Types, options: Options) -> Shape:
    return (*types[0].shape[:2], types[-1].shape[1])


def _lstm(types: Types, options: Options) -> list[TensorType]:
    h, c = types[-2:]
    return [TensorType(_sequence(types, options), h.dtype, h.quantization), c]


_SEVERAL: dict[str, Callable[[Types, Options], list[TensorType]]] = {
    "split": _split,
    "split_v": _split,
    "unpack": _unpack,
    "topk_v2": _topk,
    "unidirectional_sequence_lstm": _lstm,
}
