"""Rearranging NHWC images and batches in blocks; the result keeps scale and zero point of x."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from .values import QTensor, Value, operator


@operator(keeps=True)
def space_to_depth(x: Value, *, block_size: int) -> Value:
    """SPACE_TO_DEPTH: channels ordered (row in block, column in block, channel)."""

    def move(data: Tensor) -> Tensor:
        n, h, w, c = data.shape
        b = block_size
        blocks = data.reshape(n, h // b, b, w // b, b, c).permute(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, h // b, w // b, b * b * c)

    return x.with_values(move(x.values)) if isinstance(x, QTensor) else move(x)


@operator(keeps=True)
def depth_to_space(x: Value, *, block_size: int) -> Value:
    """DEPTH_TO_SPACE, with the same order of channels: not that of torch.pixel_shuffle."""

    def move(data: Tensor) -> Tensor:
        n, h, w, c = data.shape
        b = block_size
        blocks = data.reshape(n, h, w, b, b, c // (b * b)).permute(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, h * b, w * b, c // (b * b))

    return x.with_values(move(x.values)) if isinstance(x, QTensor) else move(x)


@operator(keeps=True)
def space_to_batch_nd(
    x: Value, block_shape: Sequence[int], paddings: Sequence[Sequence[int]]
) -> Value:
    """SPACE_TO_BATCH_ND: (block positions, batch) become the batch; padded with the zero point."""
    fill = x.offset if isinstance(x, QTensor) else 0

    def move(data: Tensor) -> Tensor:
        count = len(block_shape)
        rest = data.dim() - 1 - count
        flat = [0, 0] * rest + [cells for pair in reversed(paddings) for cells in pair]
        padded = functional.pad(data, flat, value=fill)
        split = [padded.shape[0]]
        for size, block in zip(padded.shape[1:], block_shape, strict=False):
            split += [size // block, block]
        blocks = padded.reshape(*split, *padded.shape[1 + count :])
        offsets = [2 + 2 * i for i in range(count)]
        outer = [1 + 2 * i for i in range(count)]
        tail = list(range(1 + 2 * count, blocks.dim()))
        moved = blocks.permute(*offsets, 0, *outer, *tail)
        return moved.reshape(-1, *[blocks.shape[i] for i in (*outer, *tail)])

    return x.with_values(move(x.values)) if isinstance(x, QTensor) else move(x)


@operator(keeps=True)
def batch_to_space_nd(
    x: Value, block_shape: Sequence[int], crops: Sequence[Sequence[int]]
) -> Value:
    """BATCH_TO_SPACE_ND: the inverse, cropped."""

    def move(data: Tensor) -> Tensor:
        count = len(block_shape)
        product = 1
        for block in block_shape:
            product *= block
        batch, sizes, rest = (
            data.shape[0] // product,
            data.shape[1 : 1 + count],
            data.shape[1 + count :],
        )
        blocks = data.reshape(*block_shape, batch, *sizes, *rest)
        order = [count]
        for i in range(count):
            order += [count + 1 + i, i]
        moved = blocks.permute(*order, *range(2 * count + 1, blocks.dim()))
        space = moved.reshape(
            batch, *[size * block for size, block in zip(sizes, block_shape, strict=True)], *rest
        )
        for dim, (before, after) in enumerate(crops, start=1):
            space = space.narrow(dim, before, space.shape[dim] - before - after)
        return space.contiguous()

    return x.with_values(move(x.values)) if isinstance(x, QTensor) else move(x)
