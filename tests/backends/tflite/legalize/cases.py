"""Inputs for the tests of rules: seeded, so that a case is the same in every order of tests."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn


class Case(NamedTuple):
    """A model or function and its inputs."""

    model: nn.Module | Callable[..., Any]
    inputs: tuple[Tensor, ...]


def case(model: nn.Module | Callable[..., Any], *inputs: Tensor) -> Case:
    """A case from its parts."""
    return Case(model, inputs)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normally distributed numbers, the same for the same arguments."""
    generator = torch.Generator().manual_seed(zlib.crc32(str((shape, seed)).encode()))
    return torch.randn(shape, generator=generator)


def positive(*shape: int) -> Tensor:
    """Numbers above 0.1."""
    return normal(*shape).abs() + 0.1


def inner(*shape: int) -> Tensor:
    """Numbers between -0.9 and 0.9."""
    return normal(*shape).tanh() * 0.9


def integers(low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers, low included and high not."""
    generator = torch.Generator().manual_seed(zlib.crc32(str((low, high, shape)).encode()))
    return torch.randint(low, high, shape, generator=generator)


def each(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """One test a case, by name."""
    return pytest.mark.parametrize("found", list(cases.values()), ids=list(cases))
