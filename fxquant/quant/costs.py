"""What operators cost in each precision on a target: a table for choosing, not a promise.

latency proxy of a layer = multiplications * ps(kind, dtype), or elements * ps("elementwise", …)
and of a border          = elements * ps("conversion", …)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fxquant.quant.spec import Precision

MATMULS = ("matmul", "bmm", "mm")


def storage(precision: Precision) -> str:
    """The column of a precision: `float32`, `int8`, `int16`, …; `dynamic` for int8 weights with
    float activations that the kernel quantizes. Weights that are only stored narrow save no time.

    >>> from fxquant.quant.spec import PRECISIONS
    >>> [storage(PRECISIONS[name]) for name in ("int16x8", "dynamic4", "int4_weights")]
    ['int16', 'dynamic', 'float32']
    """
    if precision.form == "dynamic":
        return "dynamic"
    activations = precision.activations
    return "float32" if activations is None else activations.dtype


def kind_of(operator: str, macs: int, depthwise: bool) -> str:
    """The row of an operator.

    >>> kind_of("conv2d", 1000, False), kind_of("bmm", 1000, False), kind_of("add", 0, False)
    ('convolution', 'matmul', 'elementwise')
    """
    if not macs:
        return "elementwise"
    if operator in MATMULS:
        return "matmul"
    if operator == "linear":
        return "linear"
    return "depthwise" if depthwise else "convolution"


@dataclass(frozen=True)
class CostTable:
    """Picoseconds a unit by kind of operator and dtype.

    Attributes:
        rows: kind -> dtype -> picoseconds; a unit is a multiplication, or an element for the kinds
            `elementwise` and `conversion`.
        source: what the figures were measured on.
    """

    rows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""

    def milliseconds(self, kind: str, dtype: str, units: int) -> float:
        """The cost of so many units; an unknown dtype counts as float32."""
        row = self.rows.get(kind, {})
        return units * row.get(dtype, row.get("float32", 0.0)) * 1e-9


BYTES = {"float32": 4.0, "int16": 2.0, "int8": 1.0, "uint8": 1.0, "int4": 0.5, "dynamic": 1.0}

KINDS = ("convolution", "depthwise", "linear", "matmul", "elementwise", "conversion")

GENERIC = CostTable(
    dict.fromkeys(KINDS, BYTES), "bytes of operands; no measurement of the target is known"
)
"""For targets without figures."""
