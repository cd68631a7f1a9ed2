"""Windows with torch's symmetric padding in a format that knows only SAME and VALID.

kernel 3, stride 1, padding 1, size 8   SAME
kernel 3, stride 2, padding 1, size 9   SAME
kernel 3, stride 2, padding 1, size 8   one row before, none after, then VALID
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Pads = tuple[tuple[int, int], ...]


class Window(NamedTuple):
    """How a window slides along one axis, in torch's terms."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    places: int

    @property
    def reach(self) -> int:
        """How many cells the kernel spans."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def after(self) -> int:
        """Padding cells behind the input that a window really touches."""
        covered = (self.places - 1) * self.stride + self.reach
        return max(covered - self.size - self.before, 0)

    @property
    def is_valid(self) -> bool:
        """Whether VALID makes the same places."""
        return self.before == 0 and self.places == (self.size - self.reach) // self.stride + 1

    @property
    def is_same(self) -> bool:
        """Whether SAME makes the same places, with the same cells before."""
        if self.places != -(-self.size // self.stride):
            return False
        missing = max((self.places - 1) * self.stride + self.reach - self.size, 0)
        return self.before == missing // 2


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    ceil_mode: bool = False,
) -> list[Window]:
    """The windows of a torch operator with symmetric padding, one for each axis."""
    found = []
    for size, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        found.append(Window(size, k, s, d, p, _places(size, k, s, p, d, ceil_mode)))
    return found


def _places(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    room = size + 2 * padding - (kernel - 1) * dilation - 1
    places = room // stride + 1
    # With ceil_mode a last window may hang over, but it must begin inside input or left padding.
    if ceil and room % stride and places * stride < size + padding:
        places += 1
    return places


def padding_of(found: Sequence[Window]) -> tuple[str, Pads]:
    """SAME or VALID, and the explicit padding before it (empty where none is needed)."""
    if all(each.is_valid for each in found):
        return "VALID", ()
    if all(each.is_same for each in found):
        return "SAME", ()
    return "VALID", tuple((each.before, each.after) for each in found)


def same_padding(size: int, kernel: int, dilation: int) -> tuple[int, int]:
    """The padding of torch's `padding="same"` (stride 1): the odd cell after.

    >>> same_padding(8, 4, 1)
    (1, 2)
    """
    total = dilation * (kernel - 1)
    return total // 2, total - total // 2


def several(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One number for all axes, or one for each.

    >>> several(2, 2), several([1, 2], 2), several([3], 2)
    ((2, 2), (1, 2), (3, 3))
    """
    if isinstance(value, int):
        return (value,) * count
    values = tuple(int(each) for each in value)
    return values * count if len(values) == 1 else values
