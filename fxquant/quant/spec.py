"""What a quantized value is allowed to be: dtype, integer range, symmetry, axis, observer.

>>> print(INT8_ACTIVATIONS)
int8 asymmetric mse
>>> print(INT8_WEIGHTS.along(0))
int8[-127,127] symmetric axis=0 minmax
>>> print(DYNAMIC_ACTIVATIONS, "/", QuantSpec("bfloat16"))
int8 dynamic / bfloat16
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fxquant.errors import ConfigError

RANGES: dict[str, tuple[int, int]] = {
    "int4": (-8, 7),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
}
"""The integers of each dtype a value can be quantized to."""

ROUNDED = ("float16", "bfloat16")
"""Narrow floating point: a value is rounded to it, and nothing has to be known of its range."""


@dataclass(frozen=True)
class QuantSpec:
    """How one value is quantized.

    Attributes:
        dtype: `int4`, `int8`, `uint8` or `int16`; `float16` and `bfloat16` only round.
        qmin, qmax: the integers used; None means all that the dtype has.
        symmetric: whether the zero point is the middle of the range.
        axis: the channel axis of per-channel parameters; None means per tensor.
        observer: name of the observer that finds the range (see `observers.OBSERVERS`).
        fixed: scale and zero point that the target prescribes; nothing is observed then.
        dynamic: parameters are found while the program runs, from the value at hand.
        dims: the dimensions along which one dynamic scale and zero point hold.
    """

    dtype: str = "int8"
    qmin: int | None = None
    qmax: int | None = None
    symmetric: bool = False
    axis: int | None = None
    observer: str = "minmax"
    fixed: tuple[float, int] | None = None
    dynamic: bool = False
    dims: tuple[int, ...] = (-1,)

    def __post_init__(self) -> None:
        if self.rounds:
            return
        if self.dtype not in RANGES:
            known = ", ".join((*RANGES, *ROUNDED))
            raise ConfigError(f"a value cannot be quantized to {self.dtype!r}", fix=f"use {known}")
        low, high = RANGES[self.dtype]
        if not low <= self.low < self.high <= high:
            raise ConfigError(
                f"the integers {self.low} to {self.high} are not a range of {self.dtype}",
                fix=f"stay within {low} and {high}",
            )

    @property
    def rounds(self) -> bool:
        """Whether values stay floating point, of fewer bits."""
        return self.dtype in ROUNDED

    @property
    def observed(self) -> bool:
        """Whether data must pass before the parameters are known."""
        return not self.rounds and not self.dynamic and self.fixed is None

    @property
    def low(self) -> int:
        """The smallest integer; 0 for floating point, which has none."""
        return RANGES.get(self.dtype, (0, 0))[0] if self.qmin is None else self.qmin

    @property
    def high(self) -> int:
        """The largest integer; 0 for floating point, which has none."""
        return RANGES.get(self.dtype, (0, 0))[1] if self.qmax is None else self.qmax

    def along(self, axis: int | None) -> QuantSpec:
        """The same with parameters per channel along `axis` (None: per tensor)."""
        return replace(self, axis=None if self.rounds else axis)

    def over(self, dims: tuple[int, ...]) -> QuantSpec:
        """The same with dynamic grids that hold along `dims`."""
        return replace(self, dims=dims)

    def __str__(self) -> str:
        if self.rounds:
            return self.dtype
        whole = (self.low, self.high) == RANGES[self.dtype]
        parts = [self.dtype if whole else f"{self.dtype}[{self.low},{self.high}]"]
        if self.fixed is not None:
            return f"{parts[0]} fixed<{self.fixed[0]:.4g},{self.fixed[1]}>"
        if self.dynamic:
            return f"{parts[0]} dynamic"
        parts.append("symmetric" if self.symmetric else "asymmetric")
        if self.axis is not None:
            parts.append(f"axis={self.axis}")
        return " ".join([*parts, self.observer])


INT8_ACTIVATIONS = QuantSpec("int8", observer="mse")
UINT8_ACTIVATIONS = QuantSpec("uint8", observer="mse")
INT16_ACTIVATIONS = QuantSpec("int16", qmin=-32767, symmetric=True, observer="headroom")
INT8_WEIGHTS = QuantSpec("int8", qmin=-127, symmetric=True)
DYNAMIC_ACTIVATIONS = QuantSpec("int8", dynamic=True)
INT4_WEIGHTS = QuantSpec("int4", qmin=-7, symmetric=True, observer="least_squares")


Form = Literal["float", "static", "dynamic", "stored", "rounded"]


@dataclass(frozen=True)
class Precision:
    """What an operator computes in: a name, and how its activations and weights are stored.

    Attributes:
        name: as it stands in a configuration, e.g. `int8`.
        activations: the spec of inputs and outputs; None for floating point.
        weights: the spec of constant weights; None for floating point.
        otherwise: name of the precision for operators for which a target lacks this one.
    """

    name: str
    activations: QuantSpec | None = None
    weights: QuantSpec | None = None
    otherwise: str = "float32"

    @property
    def form(self) -> Form:
        """How the operator computes.

        `float`; `static`: in integers, on grids known beforehand; `dynamic`: in integers that
        the kernel makes of float inputs; `stored`: in float, with weights that are stored
        narrow; `rounded`: in float, every value rounded to fewer bits.
        """
        if self.activations is None:
            return "float" if self.weights is None else "stored"
        if self.activations.dynamic:
            return "dynamic"
        return "rounded" if self.activations.rounds else "static"

    @property
    def quantized(self) -> bool:
        """Whether the operator's inputs and outputs are integers."""
        return self.form == "static"

    def __str__(self) -> str:
        return self.name


FLOAT32 = Precision("float32")
INT8 = Precision("int8", INT8_ACTIVATIONS, INT8_WEIGHTS)

PRECISIONS: dict[str, Precision] = {
    each.name: each
    for each in (
        FLOAT32,
        INT8,
        Precision("int8w4", INT8_ACTIVATIONS, INT4_WEIGHTS, otherwise="int8"),
        Precision("uint8", UINT8_ACTIVATIONS, QuantSpec("uint8", symmetric=True)),
        Precision("int16x8", INT16_ACTIVATIONS, INT8_WEIGHTS),
        Precision("dynamic", DYNAMIC_ACTIVATIONS, INT8_WEIGHTS, otherwise="int8_weights"),
        Precision("dynamic4", DYNAMIC_ACTIVATIONS, INT4_WEIGHTS, otherwise="dynamic"),
        Precision("int8_weights", None, INT8_WEIGHTS),
        Precision("int4_weights", None, INT4_WEIGHTS, otherwise="int8_weights"),
        Precision("float16", None, QuantSpec("float16")),
        Precision("bfloat16", QuantSpec("bfloat16"), QuantSpec("bfloat16")),
    )
}
"""The precisions that a configuration can name."""


def precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"there is no precision {name!r}", fix=f"use {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
