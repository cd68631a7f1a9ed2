"""Files of every stage, edited by hand, back in the pipeline: to a file that LiteRT runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import InputError
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.settle import fake_quantizes
from tests.backends.source.source_models import SmallResNet

IMAGE = torch.randn(2, 3, 8, 8)
DATA = [torch.randn(2, 3, 8, 8) for _ in range(4)]


def core(model: nn.Module) -> GraphModule:
    """In the dialect of the passes."""
    return fq.Pipeline.default("float")(fq.trace(model, (IMAGE,)))


def annotated(model: nn.Module) -> GraphModule:
    """With decisions."""
    steps = fq.Pipeline.default("ptq").remove("insert-stubs").remove("insert-observers")
    return fq.prepare(model, (IMAGE,), pipeline=steps)


def prepared(model: nn.Module) -> GraphModule:
    """Calibrated."""
    graph = fq.prepare(model, (IMAGE,))
    return fq.calibrate(graph, DATA, progress=False)


def frozen(model: nn.Module) -> GraphModule:
    """Quantized."""
    return fq.convert(prepared(model))


def traced(model: nn.Module) -> GraphModule:
    """As in the user's code."""
    return fq.trace(model, (IMAGE,))


MODULE = ("nn.ReLU(inplace=True)", "nn.ReLU6()")
OPERATOR = ("out = aten.relu.default(out)", "out = aten.leaky_relu.default(out, 0.1)")
CLIPPED = ("out = aten.relu.default(out)", "out = aten.clamp.default(out, 0.0, 0.4)")
Make = Callable[[nn.Module], GraphModule]


def edited(
    make: Make, folder: Path, old: str, new: str, options: dict[str, str] | None = None
) -> nn.Module:
    """The model of a stage's file after an edit."""
    torch.manual_seed(0)
    path = folder / "model.py"
    fq.lower(make(SmallResNet().eval()), "source", options=options).save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return fq.load_model(path)


@pytest.mark.parametrize(
    ("make", "edit", "options"),
    [
        (traced, MODULE, None),
        (traced, MODULE, {"stage": "stubbed"}),
        (core, OPERATOR, None),
        (annotated, OPERATOR, None),
        (prepared, OPERATOR, None),
    ],
    ids=["traced", "stubbed", "core", "annotated", "prepared"],
)
def test_prepared_calibrated_and_run(
    make: Make, edit: tuple[str, str], options: dict[str, str] | None, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    model = edited(make, tmp_path, *edit, options)
    with torch.no_grad():
        wanted = model(IMAGE)
    graph = fq.prepare(model, (IMAGE,))
    fq.calibrate(graph, DATA, progress=False)
    lowered = fq.lower(fq.convert(graph), "tflite")
    fq.verify(lowered, [IMAGE]).check()
    assert lowered.report.operators["CONV_2D"] == 12
    assert (lowered.report.operators["QUANTIZE"], lowered.report.operators["DEQUANTIZE"]) == (1, 1)
    found = lowered.graph_module(IMAGE)
    assert float((found - wanted).norm() / wanted.norm()) < 0.15


def test_frozen_and_run(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = edited(frozen, tmp_path, *CLIPPED)
    lowered = fq.lower(fq.trace(model, (IMAGE,)), "tflite")
    fq.verify(lowered, [IMAGE]).check()
    with torch.no_grad():
        wanted = model(IMAGE)
    assert float((lowered.graph_module(IMAGE) - wanted).abs().max()) <= 0.05
    assert lowered.report.operators["CONV_2D"] == 12


def test_ranges_are_kept_where_nothing_changed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = prepared(SmallResNet().eval())
    fq.lower(before, "source").save(tmp_path / "model.py")
    again = fq.prepare(fq.load_model(tmp_path / "model.py"), (IMAGE,))
    first = [float(module.scale.sum()) for _, module in fake_quantizes(before)]
    assert [float(module.scale.sum()) for _, module in fake_quantizes(again)] == first
    with torch.no_grad():
        assert torch.equal(again(IMAGE), before(IMAGE))
        assert torch.equal(fq.convert(again)(IMAGE), fq.convert(before)(IMAGE))


def test_ranges_of_what_changed_are_asked_for(tmp_path: Path) -> None:
    model = edited(prepared, tmp_path, *OPERATOR)
    graph = fq.prepare(model, (IMAGE,))
    with pytest.raises(fq.FxquantError, match="observers cannot tell a range"):
        fq.convert(graph)
    known = [module for _, module in fake_quantizes(graph) if module.problem() is None]
    assert len(known) > sum(isinstance(m, FakeQuantize) for m in graph.modules()) / 2


def test_a_moved_stub_moves_the_border_in_training_too(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    stubbed = {"stage": "stubbed"}
    model = edited(traced, tmp_path, "x = self.quant(x)", "", stubbed)
    path = tmp_path / "model.py"
    text = path.read_text().replace("x = self.widen(x)", "x = self.widen(self.quant(x))")
    path.write_text(text)
    model = fq.load_model(path)
    graph = fq.prepare_qat(model.train(), (IMAGE,))
    optimizer = torch.optim.SGD(graph.parameters(), lr=1e-3)
    for image in DATA:
        optimizer.zero_grad()
        graph(image).square().mean().backward()
        optimizer.step()
    lowered = fq.lower(fq.convert(graph.eval()), "tflite")
    fq.verify(lowered, [IMAGE]).check()
    stayed = [row.node for row in lowered.report.stayed_float]
    assert "conv" in stayed and "layer1_1_conv2" in stayed
    assert "widen" not in stayed and "blocks_0_conv1" not in stayed


def test_a_file_in_training_is_trained_as_it_is(tmp_path: Path) -> None:
    fq.lower(fq.prepare_qat(SmallResNet(), (IMAGE,)), "source").save(tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    for prepare in (fq.prepare, fq.prepare_qat):
        with pytest.raises(InputError, match="prepared for training already"):
            prepare(made, (IMAGE,))
