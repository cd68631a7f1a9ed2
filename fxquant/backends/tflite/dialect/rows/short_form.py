"""The short form in which the tables are written.

row("transpose_conv", "output_shape:int32[1] filter:weight x bias:weight", ...)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fxquant.ir.types import TensorType

from ..row import Call, Operand, Option, Row

ACTIVATION = "fused_activation_function:ActivationFunctionType"
NO_ACTIVATION: dict[str, Callable[[Call], Any]] = {"fused_activation_function": lambda call: "NONE"}
ANY = "f32 f16 bf16 q8 qu8 q16 i8 u8 i16 u16 i32 u32 i64 bool f64"
ORDERED = "f32 q8 qu8 q16 i8 u8 i16 i32 i64"


def row(
    name: str,
    operand_text: str,
    table: str | None = None,
    option_text: str = "",
    *,
    kinds: str,
    versions: Mapping[str, int] | None = None,
    derived: Mapping[str, Callable[[Call], Any]] | None = None,
    refusals: tuple[str, ...] = (),
    same_scale: str = "",
    fixed: Mapping[str, tuple[float, int]] | None = None,
    results: int | None = 1,
    primary: str | None = None,
    builtin: str | None = None,
    reference: bool = True,
    variables: Mapping[str, int | None] | None = None,
    intermediates: Callable[[Call], Sequence[TensorType]] | None = None,
) -> Row:
    """One row from its short form."""
    return Row(
        name=name,
        operands=operands(operand_text),
        table=table,
        options=options(option_text, **(derived or {})),
        versions=versions or {},
        dtypes=frozenset(kinds.split()),
        same_scale=tuple(same_scale.split()),
        fixed=fixed or {},
        results=results,
        primary=primary,
        builtin=builtin,
        refusals=refusals,
        reference=reference,
        variables=variables or {},
        intermediates=intermediates,
    )


def operands(text: str) -> tuple[Operand, ...]:
    """Operands from their short form: `name`, `*name`, `name:weight`, `name:int32[rank]`.

    >>> operands("axis:int32[0] *values")[0]
    Operand(name='axis', constant=0, dtype='int32', variadic=False, weight=False)
    """
    return tuple(_operand(word) for word in text.split())


def _operand(word: str) -> Operand:
    name, _, what = word.partition(":")
    if what == "weight":
        return Operand(name, weight=True)
    if what:
        dtype, _, rank = what.rstrip("]").partition("[")
        return Operand(name, constant=int(rank), dtype=dtype)
    return Operand(name.lstrip("*"), variadic=name.startswith("*"))


def options(text: str, **derived: Callable[[Call], Any]) -> tuple[Option, ...]:
    """Options from their short form: `name`, `name:Enumeration`, `name[]` for a vector.

    >>> [option.field for option in options("padding:Padding stride_w new_shape[]")]
    ['Padding', 'StrideW', 'NewShape']
    """
    found = []
    for word in text.split():
        name, _, enum = word.partition(":")
        vector = name.endswith("[]")
        name = name.removesuffix("[]")
        found.append(Option(name, enum or None, vector, derived.get(name)))
    return tuple(found)
