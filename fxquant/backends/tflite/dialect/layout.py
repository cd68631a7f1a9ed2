"""Between the file's channels-last layout and torch's channels-first operators.

The permutes only relabel dimensions: torch runs convolutions on channels-last memory natively.
SAME padding puts the odd cell at the end, which torch's symmetric padding cannot: it is explicit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from fxquant.errors import InvalidGraph


def channels_first(x: Tensor) -> Tensor:
    """N, spatial..., C -> N, C, spatial..., a view."""
    return x.movedim(-1, 1)


def channels_last(x: Tensor) -> Tensor:
    """N, C, spatial... -> N, spatial..., C, contiguous."""
    return x.movedim(1, -1).contiguous()


def output_size(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """The extent of a window operator's result.

    >>> output_size(7, 3, 2, 1, "SAME"), output_size(7, 3, 2, 1, "VALID")
    (4, 3)
    """
    if padding == "SAME":
        return -(-size // stride)
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Cells before and after, the odd one after.

    >>> same_padding(8, 3, 2, 1)
    (0, 1)
    """
    covered = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
    missing = max(covered - size, 0)
    return missing // 2, missing - missing // 2


def window_padding(
    sizes: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: str,
) -> list[tuple[int, int]]:
    """(before, after) of each spatial dimension."""
    if padding == "VALID":
        return [(0, 0)] * len(sizes)
    if padding != "SAME":
        raise InvalidGraph(f"padding is SAME or VALID, not {padding!r}")
    return [
        same_padding(*extent) for extent in zip(sizes, kernels, strides, dilations, strict=True)
    ]


def pad_first(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the spatial dimensions of a channels-first tensor."""
    flat = [cells for pair in reversed(pads) for cells in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x


def symmetric(pads: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
    """The padding as torch's operators take it, where both sides are equal."""
    return tuple(before for before, _ in pads) if all(a == b for a, b in pads) else None


def crop_transposed(
    whole: Tensor, pads: Sequence[tuple[int, int]], output_shape: Sequence[int]
) -> Tensor:
    """The window of a full transposed convolution that the result has; zeros beyond its end."""
    edges = [
        (-before, size + before - have)
        for (before, _), size, have in zip(pads, output_shape[1:], whole.shape[2:], strict=False)
    ]
    return pad_first(whole, edges)
