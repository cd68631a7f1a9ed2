"""The error report of lowered graphs: layers paired by origin, whatever lowering made of them."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.errors import CalibrationError, InputError
from fxquant.lowered_errors import _order
from fxquant.quant.error_report.report import ErrorReport, Unpaired


class Net(nn.Module):
    """Convolutions with and without activation, a residual, LayerNorm in float, and a clamp."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.gate, self.wide = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 16, 16)
        self.layer_norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = F.max_pool2d(x + torch.sigmoid(self.gate(x)), 2).flatten(1)
        y: Tensor = self.head(F.gelu(self.layer_norm(self.wide(x)))).clamp(0, 1)
        return y


BATCH = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LAYERS = ["x", "conv", "gate", "sigmoid", "add", "wide", "layer_norm", "layer_norm", "gelu", "head"]


@functools.cache
def quantized(precision: str, backend: str) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    config = fq.QuantConfig(precision, correct_bias=False)
    prepared = fq.prepare(Net().eval(), (BATCH[:1],), config, backend=backend)
    if config.needs_data:
        fq.calibrate(prepared, [BATCH], progress=False)
    return fq.convert(prepared)


@functools.cache
def program(precision: str, backend: str) -> Lowered:
    return fq.lower(quantized(precision, backend), backend)


def reports(precision: str, backend: str) -> tuple[ErrorReport, ErrorReport]:
    """Of the core graph and of the lowered one."""
    core = quantized(precision, backend)
    return (
        fq.error_report(core, [BATCH], progress=False),
        fq.error_report(program(precision, backend), [BATCH], reference=core, progress=False),
    )


@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_integer_layers_have_the_errors_that_the_core_graph_foretells(backend: str) -> None:
    """Layouts, fused activations and requantizing change the noise by little."""
    pytest.importorskip("onnx" if backend == "onnx" else "flatbuffers")
    core, lowered = reports("int8", backend)
    assert [row.node for row in lowered] == [row.node for row in core]
    assert [row.node for row in lowered][: len(LAYERS)] == LAYERS
    for row, other in zip(lowered, core, strict=True):
        assert row.operator == other.operator
        assert row.cumulative.count == other.cumulative.count
        assert row.cumulative.sqnr_db == pytest.approx(other.cumulative.sqnr_db, abs=0.1), row.node
        assert row.cumulative.cosine == pytest.approx(other.cumulative.cosine, abs=1e-3)
        if row.quantized:
            assert row.alone.sqnr_db == pytest.approx(other.alone.sqnr_db, abs=0.1), row.node
    (sums,), (wanted,) = lowered.outputs.values(), core.outputs.values()
    assert sums.sqnr_db == pytest.approx(wanted.sqnr_db, abs=0.1)
    assert (lowered.samples, lowered.unpaired) == (4, [])
    assert lowered.render().count(f"4 samples in the {backend} dialect") == 1


def test_the_error_at_the_output_is_that_of_the_program() -> None:
    """Sums over the whole data, as computed by hand with the lowered graph."""
    report = reports("int8", "tflite")[1]
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = Net().eval()(BATCH)
        found = torch.cat([program("int8", "tflite").graph_module(x) for x in BATCH.split(1)])
    noise = 20 * torch.log10(wanted.norm() / (found - wanted).norm())
    assert next(iter(report.outputs.values())).sqnr_db == pytest.approx(float(noise), abs=0.05)


def test_activations_that_lowering_fuses_join_their_layer() -> None:
    """A float graph has conv and relu apart; the file has one operator for both."""
    core, lowered = reports("float16", "tflite")
    operators = [row.operator for row in lowered]
    assert "conv2d relu" in operators and "relu" in [row.operator for row in core]
    assert min(row.cumulative.sqnr_db for row in lowered) > 60
    assert lowered["conv"].cumulative.sqnr_db == pytest.approx(
        next(row for row in core if row.operator == "relu").cumulative.sqnr_db, abs=0.1
    )
    # The clamp becomes a RELU in FULLY_CONNECTED and a MINIMUM: what lies between is no layer.
    assert Unpaired("head", "linear", "lowered") in lowered.unpaired
    assert "no counterpart in the lowered graph: %head (linear)" in lowered.render()


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "dynamic", "int8_weights"])
def test_narrow_graphs_before_and_after_they_are_frozen(precision: str) -> None:
    """No calibration is needed, and freezing changes no figure."""
    torch.manual_seed(0)
    prepared = fq.prepare(Net().eval(), (BATCH[:1],), fq.QuantConfig(precision))
    before = fq.error_report(prepared, [BATCH], progress=False)
    after = fq.error_report(fq.convert(prepared), [BATCH], progress=False)
    assert [row.node for row in before] == [row.node for row in after]
    for row, other in zip(before, after, strict=True):
        for first, second in (
            (row.alone, other.alone),
            (row.cumulative, other.cumulative),
            (row.weights, other.weights),
        ):
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                assert first.noise == pytest.approx(second.noise, rel=1e-4, abs=1e-12)
    floor = {"float16": 60, "bfloat16": 35, "dynamic": 30, "int8_weights": 35}[precision]
    assert floor < next(iter(after.outputs.values())).sqnr_db < 120
    assert after["conv"].weights is not None and after["conv"].weights.sqnr_db > floor


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"does not hold the float values(.|\n)*give reference="):
        fq.error_report(program("int8", "tflite"), [BATCH])
    core = quantized("int8", "tflite")
    with pytest.raises(InputError, match="its own reference"):
        fq.error_report(core, [BATCH], reference=core)
    with pytest.raises(CalibrationError, match="there are no data"):
        fq.error_report(program("int8", "tflite"), [], reference=core)


def test_the_order_of_dimensions_is_found_by_the_values_where_shapes_are_alike() -> None:
    value = torch.randn(1, 4, 4, 4)
    assert _order(value.permute(0, 2, 3, 1), value) == (1, 2, 0)
    assert _order(value, value) == (0, 1, 2)
    assert _order(torch.zeros(1, 5, 4, 4), value) is None
    assert _order(value.permute(0, 2, 3, 1).flatten(1), value.flatten(1)) is None


def test_what_is_missing_stands_on_the_page() -> None:
    from fxquant.quant.error_report.html import page

    report = reports("float16", "tflite")[1]
    text = page(report)
    assert "Not compared" in text and "lowered to tflite" in text
