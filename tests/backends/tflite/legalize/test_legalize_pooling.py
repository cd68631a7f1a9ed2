"""Pooling in float and int8, torch against LiteRT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from .cases import Case, case, each, normal
from .one_model import after_convolution, check, check_int8, legalized

IMAGE = normal(1, 4, 9, 11)
WINDOWS: list[tuple[Any, Any, Any, bool]] = [
    (2, 2, 0, False),
    (3, 2, 1, False),
    (3, 2, 0, True),
    (3, 1, 1, False),
    (2, 2, 1, True),
    (3, 3, 1, True),
    ((2, 3), (2, 1), (1, 0), False),
]


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("kernel,stride,padding,ceil", WINDOWS)
def test_average(
    kernel: Any, stride: Any, padding: Any, ceil: bool, count_include_pad: bool
) -> None:
    check(nn.AvgPool2d(kernel, stride, padding, ceil, count_include_pad), IMAGE)


@pytest.mark.parametrize("kernel,stride,padding,ceil", WINDOWS)
def test_maximum(kernel: Any, stride: Any, padding: Any, ceil: bool) -> None:
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    check(pool, IMAGE - 5)
    check(nn.Sequential(nn.ReLU(), pool), IMAGE)
    check_int8(after_convolution(pool), IMAGE)


CASES = {
    "max-dilated": case(nn.MaxPool2d(3, 2, 1, dilation=2), normal(1, 4, 12, 12)),
    "max-1d": case(nn.MaxPool1d(3, 2, 1), normal(2, 4, 9)),
    "max-no-batch": case(nn.MaxPool2d(2), normal(4, 8, 8)),
    "max-3d": case(nn.MaxPool3d(3, 2, 1), normal(1, 2, 5, 6, 7)),
    "average-1d": case(nn.AvgPool1d(3, 2, 1), normal(2, 4, 9)),
    "average-divisor": case(nn.AvgPool2d(3, divisor_override=5), IMAGE),
    "average-3d": case(nn.AvgPool3d(3, 2, 1), normal(1, 2, 5, 6, 7)),
    "average-3d-inside": case(
        nn.AvgPool3d(3, 2, 1, count_include_pad=False), normal(1, 2, 5, 6, 7)
    ),
    "average-3d-divisor": case(nn.AvgPool3d(2, divisor_override=3), normal(1, 2, 4, 6, 8)),
    "power": case(nn.LPPool2d(2, 2), IMAGE.abs()),
    "local-response": case(nn.LocalResponseNorm(3), IMAGE),
    **{
        f"adaptive-{size}": case(nn.AdaptiveAvgPool2d(size), IMAGE)
        for size in (1, (3, 1), (9, 11), (1, 11), 2, 5, (None, 3))
    },
    **{f"adaptive-1d-{size}": case(nn.AdaptiveAvgPool1d(size), normal(2, 4, 9)) for size in (1, 4)},
    "adaptive-3d": case(nn.AdaptiveAvgPool3d(2), normal(1, 2, 4, 5, 6)),
    "adaptive-3d-one": case(nn.AdaptiveAvgPool3d(1), normal(1, 2, 4, 5, 6)),
    **{f"adaptive-max-{size}": case(nn.AdaptiveMaxPool2d(size), IMAGE) for size in (1, 3, (4, 5))},
    "adaptive-max-1d": case(nn.AdaptiveMaxPool1d(4), normal(2, 4, 9)),
    "unused-indices": case(lambda x: functional.max_pool2d(x, 2, return_indices=True)[0], IMAGE),
}  # fmt: skip


@each(CASES)
def test_form(found: Case) -> None:
    check(found.model, *found.inputs)


INT8 = {
    "average": nn.AvgPool2d(2),
    "average-padded": nn.AvgPool2d(3, 1, 1),
    "average-inside": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "average-ceil": nn.AvgPool2d(3, 2, 0, ceil_mode=True),
    "global": nn.AdaptiveAvgPool2d(1),
    "dividing": nn.AdaptiveAvgPool2d(4),
    "relu-max": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
}


@each(INT8)
def test_int8(found: nn.Module) -> None:
    check_int8(after_convolution(found), normal(1, 4, 8, 8))


def test_padding_behind_a_relu_is_a_plain_pad() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    names = [
        getattr(n.target, "__name__", "") for n in legalized(model, normal(1, 4, 8, 8)).graph.nodes
    ]
    assert "pad" in names and "padv2" not in names


def test_maximum_of_negative_numbers_ignores_the_padding() -> None:
    check(nn.MaxPool2d(3, 2, 1), -torch.ones(1, 2, 8, 8))
