"""Convolutions of every form, torch against LiteRT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from .cases import Case, case, each, normal
from .one_model import check, check_int8, legalized

IMAGE = normal(1, 4, 9, 11)

WINDOWS = [
    (3, 1, 1, 1, 9), (3, 2, 1, 1, 8), (3, 2, 1, 1, 9), (5, 2, 2, 1, 10), (1, 1, 0, 1, 7),
    (1, 2, 0, 1, 8), (3, 1, 0, 1, 8), (3, 1, 2, 2, 9), (4, 1, 1, 1, 8), (7, 2, 3, 1, 16),
    (3, 3, 1, 1, 10), (2, 2, 0, 1, 9), (3, 1, 5, 1, 6),
]  # fmt: skip


@pytest.mark.parametrize("kernel,stride,padding,dilation,size", WINDOWS)
def test_windows(kernel: int, stride: int, padding: int, dilation: int, size: int) -> None:
    check(nn.Conv2d(4, 6, kernel, stride, padding, dilation), normal(2, 4, size, size + 1))


@pytest.mark.parametrize("kernel,stride,padding,dilation,size", WINDOWS[:4])
def test_integer_windows(kernel: int, stride: int, padding: int, dilation: int, size: int) -> None:
    check_int8(nn.Conv2d(4, 6, kernel, stride, padding, dilation), normal(1, 4, size, size + 1))


CASES = {
    "no-bias": case(nn.Conv2d(4, 6, 3, bias=False), IMAGE),
    "same": case(nn.Conv2d(4, 6, 3, padding="same"), IMAGE),
    "same-even": case(nn.Conv2d(4, 6, 4, padding="same"), IMAGE),
    "same-dilated": case(nn.Conv2d(4, 6, 4, padding="same", dilation=2), IMAGE),
    "valid": case(nn.Conv2d(4, 6, 3, padding="valid"), IMAGE),
    "asymmetric": case(nn.Conv2d(4, 6, (3, 5), (1, 2), (1, 2)), IMAGE),
    "depthwise": case(nn.Conv2d(4, 4, 3, padding=1, groups=4), IMAGE),
    "depthwise-multiplier": case(nn.Conv2d(4, 8, 3, 2, 1, groups=4), IMAGE),
    "depthwise-dilated": case(nn.Conv2d(4, 4, 3, padding=2, groups=4, dilation=2), IMAGE),
    "grouped": case(nn.Conv2d(4, 6, 3, padding=1, groups=2), IMAGE),
    "grouped-three": case(nn.Conv2d(6, 9, 3, groups=3), normal(1, 6, 8, 8)),
    "one-channel": case(nn.Conv2d(1, 3, 3), normal(1, 1, 8, 8)),
    "reflect": case(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "circular": case(nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "replicate": case(nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), IMAGE),
    "no-batch": case(nn.Conv2d(4, 6, 3), normal(4, 8, 8)),
    "computed-weight": case(
        lambda x, w: functional.conv2d(x, w, padding=1), IMAGE, normal(5, 4, 3, 3)
    ),
    "1d": case(nn.Conv1d(4, 6, 5, 2, 2), normal(2, 4, 11)),
    "1d-depthwise": case(nn.Conv1d(4, 4, 3, groups=4), normal(2, 4, 10)),
    "1d-same": case(nn.Conv1d(4, 6, 4, padding="same"), normal(2, 4, 10)),
    "1d-chain": case(
        nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3)), normal(2, 4, 10)
    ),
    "3d": case(nn.Conv3d(2, 3, 3, padding=1), normal(1, 2, 5, 6, 7)),
    "3d-grouped": case(nn.Conv3d(2, 4, 3, stride=2, groups=2), normal(1, 2, 7, 7, 7)),
    "batch-norm": case(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), IMAGE),
    "weight-norm": case(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 5, 3)), IMAGE),
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@each(CASES)
def test_form(found: Case) -> None:
    check(found.model, *found.inputs)


class DeadChannel(nn.Conv2d):
    """A convolution with one channel of zeros."""

    def __init__(self) -> None:
        super().__init__(4, 8, 1)
        with torch.no_grad():
            self.weight[2] = 0
            assert self.bias is not None
            self.bias[2] = 3.0


def _sequence(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


KEPT = ("no-bias", "same-even", "depthwise", "depthwise-multiplier", "grouped", "1d", "1d-chain")
INTEGER = {
    **{name: CASES[name] for name in KEPT},
    "relu6": case(_sequence(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU6()), IMAGE),
    "reflect": CASES["reflect"],
    "dead-channel": case(DeadChannel(), IMAGE),
    "residual": case(_sequence(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)), IMAGE),
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@each(INTEGER)
def test_integer_form(found: Case) -> None:
    check_int8(found.model, *found.inputs)


TRANSPOSED = [
    (2, 2, 0, 0), (3, 2, 1, 1), (3, 2, 1, 0), (4, 2, 1, 0), (3, 1, 1, 0), (3, 1, 0, 0),
    (3, 2, 0, 0), (5, 2, 2, 1), (3, 3, 0, 0), (3, 3, 1, 2), (4, 4, 0, 0), (3, 2, 0, 1),
    (2, 3, 0, 0), (1, 2, 0, 1), (4, 2, 0, 0), (7, 2, 3, 1),
]  # fmt: skip


@pytest.mark.parametrize("kernel,stride,padding,extra", TRANSPOSED)
def test_transposed(kernel: int, stride: int, padding: int, extra: int) -> None:
    model = nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra)
    check(model, normal(1, 4, 5, 6))
    check_int8(model, normal(1, 4, 5, 6))


TRANSPOSED_FORMS = {
    "dilated": case(nn.ConvTranspose2d(4, 6, 3, 2, 1, dilation=2), normal(1, 4, 5, 6)),
    "grouped": case(nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), normal(1, 4, 5, 6)),
    "depthwise": case(nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4, bias=False), normal(1, 4, 5, 6)),
    "1d": case(nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), normal(1, 4, 7)),
    "3d": case(nn.ConvTranspose3d(2, 3, 3, 2, 1, 1), normal(1, 2, 4, 4, 4)),
}


@each(TRANSPOSED_FORMS)
def test_transposed_form(found: Case) -> None:
    check(found.model, *found.inputs)


def test_same_padding_needs_no_pad_operator() -> None:
    names = _operators(nn.Conv2d(4, 6, 3, 1, 1), IMAGE)
    assert names == ["transpose", "conv_2d", "transpose"]


def test_only_touched_cells_are_padded() -> None:
    graph = legalized(nn.Conv2d(4, 6, 3, 2, 1), normal(1, 4, 8, 8)).graph
    (pad,) = [node for node in graph.nodes if getattr(node.target, "__name__", "") == "pad"]
    assert pad.kwargs["paddings"] == ((0, 0), (1, 0), (1, 0), (0, 0))


def test_transposes_between_convolutions_cancel() -> None:
    names = _operators(_sequence(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 3)), IMAGE)
    assert names == ["transpose", "conv_2d", "conv_2d", "transpose"]


def _operators(model: nn.Module, *inputs: Any) -> list[str]:
    graph = legalized(model, *inputs).graph
    return [node.target.__name__ for node in graph.nodes if node.op == "call_function"]
