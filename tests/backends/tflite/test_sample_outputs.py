"""Outputs come back as the model gives them, whatever stands at the file's borders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxquant as fq
from fxquant.backends.base import IoDtype, IoLayout
from fxquant.backends.tflite.sample_inputs import flat_inputs
from fxquant.backends.tflite.sample_outputs import model_outputs, run_graph


class Pyramid(nn.Module):
    """An image and a vector out of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(x)
        return features, self.head(features.mean((2, 3)))


@pytest.fixture(scope="module")
def core() -> torch.fx.GraphModule:
    """The quantized core graph of the model."""
    torch.manual_seed(0)
    prepared = fq.prepare(Pyramid().eval(), (torch.randn(1, 3, 8, 6),))
    fq.calibrate(prepared, [torch.randn(1, 3, 8, 6) for _ in range(8)], progress=False)
    return fq.convert(prepared)


@pytest.mark.parametrize("io_layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("io_dtype", ["float32", "int8"])
def test_outputs_do_not_depend_on_the_borders(
    core: torch.fx.GraphModule, io_layout: IoLayout, io_dtype: IoDtype
) -> None:
    lowered = fq.lower(core, "tflite", io_layout=io_layout, io_dtype=io_dtype)
    sample = torch.randn(1, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    wanted = core(sample)
    found = run_graph(lowered, sample)
    assert [list(each.shape) for each in found] == [[1, 5, 4, 3], [1, 4]]
    for ours, theirs in zip(wanted, found, strict=True):
        assert theirs.dtype is torch.float32
        torch.testing.assert_close(theirs, ours, atol=0.05, rtol=0)


def test_raw_outputs_of_the_file_are_read_by_scale_and_zero_point(
    core: torch.fx.GraphModule,
) -> None:
    lowered = fq.lower(core, "tflite", io_layout="nhwc", io_dtype="int8")
    (value,) = flat_inputs(lowered.graph_module, torch.zeros(1, 3, 8, 6))
    raw = lowered.graph_module(value)
    assert [each.dtype for each in raw] == [torch.int8, torch.int8]
    real = model_outputs(lowered, raw)
    assert len(real[1].unique()) <= len(raw[1].unique())
    assert real[0].shape == raw[0].movedim(-1, 1).shape
