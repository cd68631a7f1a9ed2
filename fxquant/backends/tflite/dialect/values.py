"""The values that flow between operators, and how an operator function is declared.

    torch.Tensor                             float, integer or bool data
    QTensor(values, scale, zero_point, axis) integers that stand for reals

Every operator runs on both, and on fake or meta tensors of both: there the float form is run for
its shape and the result takes the quantization that the real one would have.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from fxquant.errors import InvalidGraph

from ..kernels.quantized import QTensor, QType, quantized

__all__ = ["QTensor", "QType", "Value", "data_of", "has_data", "needs_out", "operator", "quantized"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


Value = Tensor | QTensor


def data_of(value: Value) -> Tensor:
    """The tensor itself: integers of a quantized value."""
    return value.values if isinstance(value, QTensor) else value


def real_of(value: Value) -> Tensor:
    """The reals of a value."""
    return value.real() if isinstance(value, QTensor) else value


def needs_out(out: QType | None, name: str) -> QType:
    """The result's quantization, which an integer operator cannot do without."""
    if out is None:
        raise InvalidGraph(f"{name} of a quantized value needs out=QType(dtype, scale, zero_point)")
    return out


def has_data(value: object) -> bool:
    """Whether a value holds numbers, and not only a shape."""
    tensor = value.values if isinstance(value, QTensor) else value
    if not isinstance(tensor, Tensor):
        return True
    return not isinstance(tensor, FakeTensor) and tensor.device.type != "meta"


def _quantized_operands(arguments: tuple[Any, ...]) -> list[QTensor]:
    found: list[QTensor] = []
    for argument in arguments:
        if isinstance(argument, QTensor):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            found.extend(part for part in argument if isinstance(part, QTensor))
    return found


def _shape_only(argument: Any) -> Any:
    if isinstance(argument, QTensor):
        return argument.values.to(torch.float32)
    if isinstance(argument, list | tuple) and any(isinstance(part, QTensor) for part in argument):
        return [_shape_only(part) for part in argument]
    return argument


def _typed(result: Any, like: QTensor | None, out: QType | None) -> Any:
    if isinstance(result, list | tuple):
        return [_typed(part, like, out) for part in result]
    if not isinstance(result, Tensor) or not result.dtype.is_floating_point:
        return result
    if out is not None:
        return quantized(result, out)
    return result if like is None else like._replace(values=result.to(like.values.dtype))


def operator(
    *, keeps: bool = False
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Declare a function of the dialect.

    Args:
        keeps: the result has the scale and zero point of the first quantized operand.
    """

    def declare(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            operands = _quantized_operands((*args, *kwargs.values()))
            if not operands or all(map(has_data, operands)):
                return function(*args, **kwargs)
            out = kwargs.pop("out", None)
            assert out is None or isinstance(out, QType)
            shapes = [_shape_only(argument) for argument in args]
            options = {name: _shape_only(argument) for name, argument in kwargs.items()}
            result = function(*shapes, **options)
            typed: Result = _typed(result, operands[0] if keeps else None, out)
            return typed

        return run

    return declare
