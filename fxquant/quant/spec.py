"""What a quantized value is allowed to be: dtype, integer range, symmetry, axis, observer.

>>> print(INT8_ACTIVATIONS)
int8 asymmetric mse
>>> print(INT8_WEIGHTS.along(0))
int8[-127,127] symmetric axis=0 minmax
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fxquant.errors import ConfigError

RANGES: dict[str, tuple[int, int]] = {
    "int4": (-8, 7),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
}
"""The integers of each dtype a value can be quantized to."""


@dataclass(frozen=True)
class QuantSpec:
    """How one value is quantized.

    Attributes:
        dtype: `int4`, `int8`, `uint8` or `int16`.
        qmin, qmax: the integers used; None means all that the dtype has.
        symmetric: whether the zero point is the middle of the range.
        axis: the channel axis of per-channel parameters; None means per tensor.
        observer: name of the observer that finds the range (see `observers.OBSERVERS`).
        fixed: scale and zero point that the target prescribes; nothing is observed then.
    """

    dtype: str = "int8"
    qmin: int | None = None
    qmax: int | None = None
    symmetric: bool = False
    axis: int | None = None
    observer: str = "minmax"
    fixed: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in RANGES:
            raise ConfigError(
                f"a value cannot be quantized to {self.dtype!r}", fix=f"use {', '.join(RANGES)}"
            )
        low, high = RANGES[self.dtype]
        if not low <= self.low < self.high <= high:
            raise ConfigError(
                f"the integers {self.low} to {self.high} are not a range of {self.dtype}",
                fix=f"stay within {low} and {high}",
            )

    @property
    def low(self) -> int:
        """The smallest integer."""
        return RANGES[self.dtype][0] if self.qmin is None else self.qmin

    @property
    def high(self) -> int:
        """The largest integer."""
        return RANGES[self.dtype][1] if self.qmax is None else self.qmax

    def along(self, axis: int | None) -> QuantSpec:
        """The same with parameters per channel along `axis` (None: per tensor)."""
        return replace(self, axis=axis)

    def __str__(self) -> str:
        whole = (self.low, self.high) == RANGES[self.dtype]
        parts = [self.dtype if whole else f"{self.dtype}[{self.low},{self.high}]"]
        if self.fixed is not None:
            return f"{parts[0]} fixed<{self.fixed[0]:.4g},{self.fixed[1]}>"
        parts.append("symmetric" if self.symmetric else "asymmetric")
        if self.axis is not None:
            parts.append(f"axis={self.axis}")
        return " ".join([*parts, self.observer])


INT8_ACTIVATIONS = QuantSpec("int8", observer="mse")
UINT8_ACTIVATIONS = QuantSpec("uint8", observer="mse")
INT16_ACTIVATIONS = QuantSpec("int16", qmin=-32767, symmetric=True, observer="minmax")
INT8_WEIGHTS = QuantSpec("int8", qmin=-127, symmetric=True)
INT4_WEIGHTS = QuantSpec("int4", qmin=-7, symmetric=True)


@dataclass(frozen=True)
class Precision:
    """What an operator computes in: a name, and how its activations and weights are stored.

    Attributes:
        name: as it stands in a configuration, e.g. `int8`.
        activations: the spec of inputs and outputs; None for floating point.
        weights: the spec of constant weights; None for floating point.
    """

    name: str
    activations: QuantSpec | None = None
    weights: QuantSpec | None = None

    @property
    def quantized(self) -> bool:
        """Whether the operator computes in integers."""
        return self.activations is not None

    def __str__(self) -> str:
        return self.name


FLOAT32 = Precision("float32")
INT8 = Precision("int8", INT8_ACTIVATIONS, INT8_WEIGHTS)

PRECISIONS: dict[str, Precision] = {
    "float32": FLOAT32,
    "int8": INT8,
    "int8w4": Precision("int8w4", INT8_ACTIVATIONS, INT4_WEIGHTS),
    "uint8": Precision("uint8", UINT8_ACTIVATIONS, QuantSpec("uint8", symmetric=True)),
    "int16x8": Precision("int16x8", INT16_ACTIVATIONS, INT8_WEIGHTS),
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
