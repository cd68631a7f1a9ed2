"""Comparisons and logic, with broadcasting; the result is bool."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..kernels.comparison import comparable
from .values import QTensor, Value, data_of, operator, real_of


def _compare(function: Callable[[Tensor, Tensor], Tensor], x: Value, y: Value) -> Tensor:
    if isinstance(x, QTensor) and isinstance(y, QTensor):
        return function(*comparable(x, y))
    return function(real_of(x), real_of(y))


@operator()
def equal(x: Value, y: Value) -> Tensor:
    """EQUAL."""
    return _compare(torch.eq, x, y)


@operator()
def not_equal(x: Value, y: Value) -> Tensor:
    """NOT_EQUAL."""
    return _compare(torch.ne, x, y)


@operator()
def less(x: Value, y: Value) -> Tensor:
    """LESS."""
    return _compare(torch.lt, x, y)


@operator()
def less_equal(x: Value, y: Value) -> Tensor:
    """LESS_EQUAL."""
    return _compare(torch.le, x, y)


@operator()
def greater(x: Value, y: Value) -> Tensor:
    """GREATER."""
    return _compare(torch.gt, x, y)


@operator()
def greater_equal(x: Value, y: Value) -> Tensor:
    """GREATER_EQUAL."""
    return _compare(torch.ge, x, y)


@operator()
def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """LOGICAL_AND."""
    return torch.logical_and(data_of(x), data_of(y))


@operator()
def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """LOGICAL_OR."""
    return torch.logical_or(data_of(x), data_of(y))


@operator()
def logical_not(x: Tensor) -> Tensor:
    """LOGICAL_NOT."""
    return torch.logical_not(data_of(x))
