"""Each of TinyNeuralNetwork's 42 fusion patterns ends as the same operators here.

docs/fusion.md says what does it; this says that it is done: the operators of the int8 file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from tests.passes.test_graph_passes import with_statistics

PAGE = Path(__file__).parents[2] / "docs" / "fusion.md"
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
UP = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SHAPES = {0: (2, 4), 1: (2, 4, 8), 2: (2, 4, 6, 6), 3: (1, 4, 5, 5, 5)}
BORDERS = {"QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "RESHAPE"}
CONV_2D = {"CONV_2D": 1}
UP_2D = {"TRANSPOSE_CONV": 1}
FC = {"FULLY_CONNECTED": 1}


class Clamp(nn.Module):
    """clamp(0, 6) as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, 0, 6)


class Sum(nn.Module):
    """Two convolutions whose sum goes through a function."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.end = conv(2), conv(2), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.a(x) + self.b(x))


def conv(rank: int) -> nn.Module:
    return CONV[rank](4, 6, 3)


def up(rank: int) -> nn.Module:
    return UP[rank](4, 6, 3)


def norm(rank: int, channels: int = 6) -> nn.Module:
    return NORM[rank](channels)


def linear() -> nn.Module:
    return nn.Linear(4, 6)


class Row(NamedTuple):
    """A pattern: its name, its parts, the rank of its input, and the operators of the file."""

    name: str
    parts: tuple[nn.Module, ...]
    rank: int
    operators: dict[str, int]


RELU, RELU6, CLAMP = nn.ReLU(), nn.ReLU6(), Clamp()
DEPTHWISE = {"DEPTHWISE_CONV_2D": 1}
LINE_3D = {"MUL": 1, "ADD": 1}  # no integer convolution of volumes: float, with its activation
BOTH_WAYS = (
    Row("Conv1d-BN1d", (conv(1), norm(1)), 1, CONV_2D),
    Row("Conv1d-BN1d-ReLU", (conv(1), norm(1), RELU), 1, CONV_2D),
    Row("Conv2d-BN2d", (conv(2), norm(2)), 2, CONV_2D),
    Row("Conv2d-BN2d-ReLU", (conv(2), norm(2), RELU), 2, CONV_2D),
    Row("Conv3d-BN3d", (conv(3), norm(3)), 3, {"CONV_3D": 1}),
    Row("Conv3d-BN3d-ReLU", (conv(3), norm(3), RELU), 3, {"CONV_3D": 1, "RELU": 1}),
    Row("Conv1d-ReLU", (conv(1), RELU), 1, CONV_2D),
    Row("Conv2d-ReLU", (conv(2), RELU), 2, CONV_2D),
    Row("Conv3d-ReLU", (conv(3), RELU), 3, {"CONV_3D": 1, "RELU": 1}),
    Row("Linear-ReLU", (linear(), RELU), 0, FC),
    Row("BN2d-ReLU", (norm(2, 4), RELU), 2, DEPTHWISE),
    Row("BN3d-ReLU", (norm(3, 4), RELU), 3, LINE_3D),
    Row("ConvTranspose2d-BN2d", (up(2), norm(2)), 2, UP_2D),
)
AFTER_TRAINING = (
    Row("Linear-BN1d", (linear(), norm(1)), 0, FC),
    Row("ConvTranspose1d-BN1d", (up(1), norm(1)), 1, UP_2D),
    Row("ConvTranspose3d-BN3d", (up(3), norm(3)), 3, {"CONV_3D_TRANSPOSE": 1}),
    Row("BN2d-Conv2d", (norm(2, 4), conv(2)), 2, {**DEPTHWISE, **CONV_2D}),
    Row("BN2d-Conv2d-ReLU", (norm(2, 4), conv(2), RELU), 2, {**DEPTHWISE, **CONV_2D}),
)
ACTIVATIONS = (
    Row("Conv1d-BN1d-ReLU6", (conv(1), norm(1), RELU6), 1, CONV_2D),
    Row("Conv2d-BN2d-ReLU6", (conv(2), norm(2), RELU6), 2, CONV_2D),
    Row("Conv3d-BN3d-ReLU6", (conv(3), norm(3), RELU6), 3, {"CONV_3D": 1, "RELU6": 1}),
    Row("Conv1d-ReLU6", (conv(1), RELU6), 1, CONV_2D),
    Row("Conv2d-ReLU6", (conv(2), RELU6), 2, CONV_2D),
    Row("Conv3d-ReLU6", (conv(3), RELU6), 3, {"CONV_3D": 1, "RELU6": 1}),
    Row("Linear-ReLU6", (linear(), RELU6), 0, FC),
    Row("Linear-BN1d-ReLU6", (linear(), norm(1), RELU6), 0, FC),
    Row("BN2d-ReLU6", (norm(2, 4), RELU6), 2, DEPTHWISE),
    Row("BN3d-ReLU6", (norm(3, 4), RELU6), 3, LINE_3D),
    Row("ConvTranspose2d-ReLU6", (up(2), RELU6), 2, UP_2D),
    Row("ConvTranspose2d-BN2d-ReLU6", (up(2), norm(2), RELU6), 2, UP_2D),
    Row("Conv2d-BN2d-clamp", (conv(2), norm(2), CLAMP), 2, CONV_2D),
    Row("Conv2d-clamp", (conv(2), CLAMP), 2, CONV_2D),
    Row("Linear-clamp", (linear(), CLAMP), 0, FC),
    Row("Linear-BN1d-clamp", (linear(), norm(1), CLAMP), 0, FC),
    Row("BN2d-clamp", (norm(2, 4), CLAMP), 2, DEPTHWISE),
    Row("ConvTranspose2d-clamp", (up(2), CLAMP), 2, UP_2D),
    Row("ConvTranspose2d-BN2d-clamp", (up(2), norm(2), CLAMP), 2, UP_2D),
    Row("add-ReLU6", (Sum(nn.ReLU6()),), 2, {"CONV_2D": 2, "ADD": 1}),
    Row("add-relu6", (Sum(F.relu6),), 2, {"CONV_2D": 2, "ADD": 1}),
    Row("add-clamp", (Sum(lambda x: x.clamp(0, 6)),), 2, {"CONV_2D": 2, "ADD": 1}),
    Row("ConvTranspose2d-ReLU", (up(2), RELU), 2, UP_2D),
    Row("ConvTranspose2d-BN2d-ReLU", (up(2), norm(2), RELU), 2, UP_2D),
)
ROWS = (*BOTH_WAYS, *AFTER_TRAINING, *ACTIVATIONS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_operators_of_the_file(row: Row) -> None:
    model, shape = with_statistics(nn.Sequential(*row.parts)), SHAPES[row.rank]
    x = (torch.randn(shape),)
    lowered = fq.compile(model, x, quantize="int8", calibration=[x], progress=False)
    found = lowered.report.operators
    assert {name: count for name, count in found.items() if name not in BORDERS} == row.operators
    assert (row.rank == 3) == ("QUANTIZE" not in found)


def test_the_page_lists_them_all() -> None:
    section = PAGE.read_text().partition("## The patterns of TinyNeuralNetwork")[2]
    listed = re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)
    assert len(ROWS) == len(set(listed)) == 42
    assert listed == [row.name for row in ROWS]
