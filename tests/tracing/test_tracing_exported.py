"""An exported program gives the same file as the model it was exported from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import TraceError
from fxquant.tracing.exported import trace_exported
from tests.support.vision import vision_models
from tests.test_api import Net, example


def assert_same_file(model: nn.Module, inputs: tuple[Tensor, ...], backend: str = "tflite") -> None:
    program = torch.export.export(model, inputs)
    files = [fq.compile(each, inputs, backend=backend).to_bytes() for each in (program, model)]
    assert files[0] == files[1]


@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_the_float_file_is_the_same(backend: str) -> None:
    assert_same_file(Net().eval(), example(), backend)


def test_the_int8_file_is_the_same() -> None:
    model, data = Net().eval(), [torch.randn(2, 3, 16, 16) for _ in range(3)]
    program = torch.export.export(model, example())
    files = [
        fq.compile(each, example(), quantize="int8", calibration=data, progress=False).to_bytes()
        for each in (program, model)
    ]
    assert files[0] == files[1]


def test_layers_with_spatial_dimensions_of_every_rank() -> None:
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, affine=False), nn.Hardswish(), nn.Dropout(0.2)
    )
    assert_same_file(model.eval(), (torch.randn(2, 3, 9),))


def test_lines_of_the_user_survive_the_export() -> None:
    graph_module = trace_exported(torch.export.export(Net().eval(), example()))
    (relu, *_) = [node for node in graph_module.graph.nodes if node.name == "relu"]
    assert "x = torch.relu(self.stem(x))" in str(relu.meta["source"])


def test_the_state_dict_keeps_its_names() -> None:
    model = Net().eval()
    graph_module = trace_exported(torch.export.export(model, example()))
    assert set(model.state_dict()) <= set(graph_module.state_dict())
    (x,) = example()
    assert torch.equal(graph_module(x), model(x))


def test_a_program_that_trains_is_refused() -> None:
    program = torch.export.export(Net().train(), (torch.randn(2, 3, 16, 16),))
    with pytest.raises(TraceError, match="the exported program trains"):
        trace_exported(program)


def test_a_real_network() -> None:
    model = vision_models().mobilenet_v3_small(weights=None).eval()
    assert_same_file(model, (torch.randn(1, 3, 32, 32),))
