"""Files of the later stages: equal to their graphs, readable, and good for the pipeline again."""

from __future__ import annotations

import copy
import importlib
import pkgutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import fxquant as fq
import fxquant.quant
from fxquant import nn as fqnn
from fxquant.ir.spelling import construction
from fxquant.quant.fake_quantize import FakeQuantize
from tests.backends.source.source_models import SmallResNet
from tests.conftest import Golden
from tests.tracing.test_tracing_zoo import SIZES, network

IMAGE = torch.randn(2, 3, 8, 8)


def code(graph: GraphModule) -> str:
    return bytes(fq.lower(graph, "source").segments()[0]).decode()


def assert_file_equals(graph: GraphModule, example: torch.Tensor) -> None:
    """The file of a graph computes what the graph does, and keeps to the line length."""
    lowered = fq.lower(graph, "source")
    report = fq.verify(lowered, [(example,)])
    assert report.ok, report.render()


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_0", "vit", "swin"])
def test_every_stage_of_networks(name: str) -> None:
    model = network(name).eval()
    example = torch.randn(1, 3, SIZES.get(name, 48), SIZES.get(name, 48))
    assert_file_equals(fq.Pipeline.default("float")(fq.trace(model, (example,))), example)
    prepared = fq.prepare(model, (example,))
    assert_file_equals(prepared, example)
    fq.calibrate(prepared, [example], progress=False)
    assert_file_equals(prepared, example)
    assert_file_equals(fq.convert(prepared), example)


@pytest.fixture(scope="module")
def prepared() -> GraphModule:
    torch.manual_seed(0)
    graph = fq.prepare(SmallResNet().eval(), (IMAGE,))
    fq.calibrate(graph, [IMAGE], progress=False)
    return graph


def test_text_of_the_core(golden: Golden) -> None:
    graph = fq.Pipeline.default("float")(fq.trace(SmallResNet().eval(), (IMAGE,)))
    golden("core", code(graph))


def test_text_of_annotations(golden: Golden) -> None:
    steps = fq.Pipeline.default("ptq").remove("insert-stubs").remove("insert-observers")
    config = fq.QuantConfig(rules=(fq.Rule(module="blocks.1", precision="float32"),))
    golden("annotated", code(fq.prepare(SmallResNet().eval(), (IMAGE,), config, pipeline=steps)))


def test_text_of_prepared(prepared: GraphModule, golden: Golden) -> None:
    golden("prepared", code(prepared))


def test_text_of_frozen(prepared: GraphModule) -> None:
    text = code(fq.convert(prepared))
    assert "aten.fake_quantize_per_channel_affine.default(" in text
    assert "fqnn.FakeQuantize" not in text
    assert text.count("class BasicBlock") == 1, "numbers are arguments of one class"


def test_lines_fit(prepared: GraphModule) -> None:
    long = [line for line in code(prepared).splitlines() if len(line) > 100]
    assert long == []


def test_calibration_goes_on_with_a_loaded_file(prepared: GraphModule, tmp_path: Path) -> None:
    fq.lower(prepared, "source").save(tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    scales = {id(m): m.scale for m in made.modules() if isinstance(m, FakeQuantize)}
    known = {id(m): m.scale for m in prepared.modules() if isinstance(m, FakeQuantize)}
    assert len(scales) == len(known)
    assert sorted(float(s.sum()) for s in scales.values()) == sorted(
        float(s.sum()) for s in known.values()
    )


def test_a_frozen_file_lowers_to_the_same_program(prepared: GraphModule, tmp_path: Path) -> None:
    frozen = fq.convert(prepared)
    fq.lower(frozen, "source").save(tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    again = fq.Pipeline.parse("functionalize")(fq.trace(made, (IMAGE,)))
    with torch.no_grad():
        assert torch.equal(again(IMAGE), frozen(IMAGE))


def test_a_training_graph_is_a_trainable_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = fq.prepare_qat(SmallResNet(), (IMAGE,))
    fq.lower(graph, "source").save(tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    assert made.training
    results = []
    for model in (copy.deepcopy(graph), made):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(IMAGE).square().mean()
            loss.backward()
            optimizer.step()
        results.append(float(loss.detach()))
    assert results[0] == results[1]


def test_modules_of_graphs_are_public() -> None:
    """A file can only call what `fxquant.nn` has."""
    homes = pkgutil.walk_packages(fxquant.quant.__path__, "fxquant.quant.")
    printed = {
        name
        for home in homes
        for name, value in vars(importlib.import_module(home.name)).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and hasattr(value, "ir_label")
    }
    assert sorted(name for name in printed if not hasattr(fqnn, name)) == []


def test_a_learned_step_is_made_anew() -> None:
    quantizer = fqnn.LearnedFakeQuantize(fqnn.QuantSpec(), offset=True)
    assert construction(quantizer).code == "fqnn.LearnedFakeQuantize(fqnn.QuantSpec(), offset=True)"
