"""What the file format must know of an operator, as data: one `Row` per function of the dialect.

    tfl.transpose_conv(x, filter, bias, output_shape=(1, 8, 8, 4), stride_h=2, stride_w=2)
      -> TRANSPOSE_CONV version 3, inputs [int32[4], filter, x, bias],
         TransposeConvOptions {Padding: 0, StrideW: 2, StrideH: 2, FusedActivationFunction: 0}

A row says in which order the file wants the operands, which of the function's Python arguments
become constant tensors, which become fields of the options table, and which version the types
need. `Row.call` binds one use of the function; everything else is asked of that `Call`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fxquant.ir.types import TensorType

from .conditions import CONDITIONS, kind_of
from .refusals import REFUSALS

Argument = Any  # a graph node, a tensor or a Python constant: as in torch.fx
NumpyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Operand:
    """One operand of the operator, in the file's order.

    Args:
        name: the function's parameter.
        constant: the rank of the constant tensor that a Python argument becomes (None: the
            argument is a value of the graph).
        dtype: dtype of that constant tensor.
        variadic: the argument is a sequence of values, each an operand.
        weight: a weight or bias, whose dtype does not decide the version.
    """

    name: str
    constant: int | None = None
    dtype: str = "int32"
    variadic: bool = False
    weight: bool = False


@dataclass(frozen=True)
class Option:
    """One field of the options table.

    Args:
        name: the schema's name, and the function's keyword.
        enum: the schema's enumeration whose member the keyword names.
        vector: the field is a vector of int32.
        derive: computes the value where it is no keyword of the function.
    """

    name: str
    enum: str | None = None
    vector: bool = False
    derive: Callable[[Call], Any] | None = None

    @property
    def field(self) -> str:
        """The name in the generated setters.

        >>> Option("dilation_h_factor").field
        'DilationHFactor'
        """
        return "".join(part.capitalize() for part in self.name.split("_"))


@dataclass(frozen=True)
class Row:
    """One operator of the file format.

    Args:
        name: the function in the dialect.
        operands: the file's inputs, in order.
        options: fields of the options table.
        table: the options table's class in the schema.
        versions: condition (a name of `CONDITIONS`) -> version; the largest that applies counts.
        dtypes: kinds (see `kind_of`) that the primary operand may have in the plain kernels.
        same_scale: operands which must have exactly the result's scale and zero point.
        fixed: kind -> (scale, zero point) that the result must have.
        results: how many values the operator makes (None: an argument says so).
        primary: the operand whose dtype decides, if not the first graph value.
        builtin: the schema's name, if not the function's in capitals.
        refusals: names in `REFUSALS`: forms that must never be written.
        reference: whether BUILTIN_REF has the operator.
        variables: operands that the kernel overwrites and keeps for the next call: variable tensors
            in the file; with the number of the result that the operand is afterwards, if any.
        intermediates: types of tensors that hold no values; the kernel reads scales from them.
    """

    name: str
    operands: tuple[Operand, ...]
    table: str | None = None
    options: tuple[Option, ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)
    dtypes: frozenset[str] = frozenset()
    same_scale: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    results: int | None = 1
    primary: str | None = None
    builtin: str | None = None
    refusals: tuple[str, ...] = ()
    reference: bool = True
    variables: Mapping[str, int | None] = field(default_factory=dict)
    intermediates: Callable[[Call], Sequence[TensorType]] | None = None

    @property
    def code(self) -> int:
        """The number of the builtin operator."""
        import tflite

        return int(getattr(tflite.BuiltinOperator, self.builtin or self.name.upper()))

    def call(
        self,
        function: Callable[..., Any],
        args: Sequence[Argument],
        kwargs: Mapping[str, Argument],
        type_of: Callable[[Argument], TensorType],
        results: Sequence[TensorType],
    ) -> Call:
        """One use of the operator, every argument known by its parameter's name."""
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        return Call(self, dict(bound.arguments), type_of, tuple(results))


@dataclass(frozen=True)
class Call:
    """One use of an operator: arguments by parameter name (defaults filled in), result types."""

    row: Row
    arguments: Mapping[str, Argument]
    type_of: Callable[[Argument], TensorType]
    results: tuple[TensorType, ...]

    def values(self) -> Iterator[tuple[Operand, Argument]]:
        """The operands that are values of the graph; absent optional ones left out."""
        for operand in self.row.operands:
            argument = self.arguments[operand.name]
            if operand.constant is not None or argument is None:
                continue
            for value in argument if operand.variadic else (argument,):
                yield operand, value

    def type(self, name: str) -> TensorType | None:
        """The type of the operand `name`, of the first one where it is a sequence."""
        for operand, value in self.values():
            if operand.name == name:
                return self.type_of(value)
        return None

    @property
    def primary(self) -> TensorType:
        """The type of the operand that decides the version."""
        for operand, value in self.values():
            if operand.name == self.row.primary or self.row.primary is None:
                return self.type_of(value)
        return self.results[0]

    def inputs(self) -> list[Argument | NumpyArray | None]:
        """The file's inputs in order: graph values, constant arrays, None for index -1."""
        found: list[Argument | NumpyArray | None] = []
        for operand in self.row.operands:
            argument = self.arguments[operand.name]
            if operand.constant is not None:
                found.append(_constant(argument, operand))
            elif operand.variadic:
                found.extend(argument)
            else:
                found.append(argument)
        while found and found[-1] is None:
            found.pop()
        return found

    def fields(self) -> dict[str, int | float | bool | tuple[int, ...]]:
        """The options table: setter name -> value as the file stores it."""
        return {option.field: self._encode(option) for option in self.row.options}

    def _encode(self, option: Option) -> int | float | bool | tuple[int, ...]:
        value = option.derive(self) if option.derive else self.arguments[option.name]
        if option.enum is not None:
            import tflite

            return int(getattr(getattr(tflite, option.enum), str(value).upper()))
        if option.vector:
            return tuple(map(int, value))
        return value  # type: ignore[no-any-return]

    def version(self) -> int:
        """The smallest operator version that knows these types."""
        wanted = self.row.versions
        return max([1, *(wanted[name] for name in wanted if CONDITIONS[name](self))])

    def refused(self) -> list[str]:
        """Why this use must not be written; empty when it may."""
        forms = [REFUSALS[name] for name in self.row.refusals]
        reasons = [form.reason for form in forms if form.when(self)]
        return [*reasons, *self._wrong_kind(), *self._wrong_scales()]

    def _wrong_kind(self) -> list[str]:
        kind = kind_of(self.primary)
        if not self.row.dtypes or kind in self.row.dtypes:
            return []
        known = ", ".join(sorted(self.row.dtypes))
        return [f"{self.row.name} has no kernel for {self.primary} ({kind}); it has {known}"]

    def _wrong_scales(self) -> list[str]:
        result = self.results[0]
        if result.quantization is None:
            return []
        wrong = [
            f"{self.row.name} copies raw values, but {operand.name} is {self.type_of(value)} "
            f"and the result is {result}"
            for operand, value in self.values()
            if operand.name in self.row.same_scale
            and self.type_of(value).quantization != result.quantization
        ]
        fixed = self.row.fixed.get(kind_of(result))
        found = (result.quantization.scale[0], result.quantization.zero_point[0])
        if fixed is not None and found != fixed:
            wrong.append(f"{self.row.name} must have scale and zero point {fixed}, not {found}")
        return wrong


def _constant(argument: Any, operand: Operand) -> NumpyArray:
    """A Python argument as a constant tensor; a number may stand for a vector of one."""
    array = np.asarray(argument, operand.dtype)
    return array.reshape(array.size) if operand.constant == 1 else array
