"""What `explain` says of models, graphs and backends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import InputError


class Net(nn.Module):
    """Operators that are quantized, stay float, or cannot be expressed."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.sinh(x.mean((2, 3)))
        y: Tensor = self.head(x)
        return torch.lgamma(y) if self.last else y


def example() -> tuple[Tensor]:
    return (torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)


@pytest.mark.parametrize(("backend", "layer"), [("tflite", "CONV_2D"), ("onnx", "Conv")])
def test_precision_operators_and_reasons(backend: str, layer: str) -> None:
    found = fq.explain(Net(last=False).eval(), example(), backend=backend)
    assert found["conv"].precision == "int8"
    assert found["conv"].reason == "ends with %relu"
    assert layer in found["conv"].target
    assert found["sinh"].precision == "float32"
    assert found["sinh"].reason == f"{backend} has no int8 kernel for aten.sinh"
    assert "test_explanation.py" in found["sinh"].source
    assert "torch.sinh" in found["sinh"].source
    assert found.unsupported == []


@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_what_cannot_be_expressed_has_a_reason_and_the_rest_its_row(backend: str) -> None:
    found = fq.explain(Net(last=True).eval(), example(), backend=backend)
    (refused,) = found.unsupported
    assert refused.node == "lgamma"
    assert refused.reason == f"{backend} has no rule for aten.lgamma"
    assert found["conv"].precision == "int8"
    text = str(found)
    assert "not at all" in text
    assert text.startswith(f"{backend}: ")


def test_graphs_of_every_stage() -> None:
    model = Net(last=False).eval()
    traced = fq.trace(model, example())
    prepared = fq.prepare(traced, example(), backend="onnx")
    names = set(fq.explain(traced, backend="onnx"))
    assert set(fq.explain(prepared, backend="onnx")) == names
    fq.calibrate(prepared, [example()], progress=False)
    before = fq.format_graph(fq.convert(prepared))
    frozen = fq.convert(prepared)
    found = fq.explain(frozen, backend="onnx")
    assert set(found) == names
    assert "DequantizeLinear" in found["conv"].target
    assert fq.format_graph(frozen) == before, "the graph is left as it was"


def test_a_configuration_is_obeyed() -> None:
    config = fq.QuantConfig(keep_float=("conv2d",))
    found = fq.explain(Net(last=False).eval(), example(), config, backend="onnx")
    assert found["conv"].precision == "float32"
    assert found["conv"].reason.startswith("rule op=conv2d")


def test_a_model_needs_example_inputs() -> None:
    with pytest.raises(InputError, match="following it on example inputs"):
        fq.explain(Net(last=False), backend="onnx")
