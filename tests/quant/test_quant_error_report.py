"""The error report: each layer's error computed by hand, alone and accumulated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import CalibrationError, InputError
from fxquant.ir.edit import get_attribute
from fxquant.passes.freeze import Freeze
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.quant.error_report.measure import error_report
from fxquant.quant.error_report.report import ErrorReport
from fxquant.quant.error_report.sums import ErrorSums
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.spec import PRECISIONS
from tests.passes.core_graphs import Builder, pooled_convolution
from tests.passes.quantized_graphs import prepared

PLAIN = QuantConfig(equalize=False, correct_bias=False)


def chain(config: QuantConfig = PLAIN) -> GraphModule:
    """Two convolutions, the first with relu, and exp, which stays in float."""
    torch.manual_seed(0)
    b = Builder(w=torch.randn(6, 3, 3, 3), v=torch.randn(5, 6, 3, 3), b=torch.randn(6))
    x = b.input("x", torch.randn(1, 3, 8, 8))
    first = b("relu", b("conv2d", x, b.get("w"), b.get("b"), name="first"))
    return b.finish(b("exp", b("conv2d", first, b.get("v"), name="second")), config=config)


def images(count: int, batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(batch, 3, 8, 8, generator=generator) - 0.3 for _ in range(count)]


def module(graph_module: GraphModule, name: str) -> FakeQuantize:
    found = get_attribute(graph_module, f"quantizers.{name}")
    assert isinstance(found, FakeQuantize)
    return found


def test_errors_are_those_computed_by_hand() -> None:
    graph_module = calibrate(prepared(chain()), images(4))
    x = torch.cat(images(3))
    report = error_report(graph_module, images(3))
    w, v, b = (get_attribute(graph_module, name).detach() for name in ("w", "v", "b"))
    grid = {n: module(graph_module, n) for n in ("x_quant", "w", "relu", "v", "second")}

    def first(x: Tensor, w: Tensor) -> Tensor:
        return torch.conv2d(x, w, b).relu()

    wanted = first(x, w)
    rounded = grid["relu"].rounded(first(grid["x_quant"].rounded(x), grid["w"].rounded(w)))
    alone = grid["second"].rounded(torch.conv2d(grid["relu"].rounded(wanted), grid["v"].rounded(v)))
    both = grid["second"].rounded(torch.conv2d(rounded, grid["v"].rounded(v)))
    last = torch.conv2d(wanted, v)

    def sqnr(found: Tensor, wanted: Tensor) -> float:
        return float(20 * torch.log10(wanted.norm() / (found - wanted).norm()))

    assert [row.node for row in report] == ["x", "first", "second", "exp"]
    assert report["x"].cumulative.sqnr_db == pytest.approx(
        sqnr(grid["x_quant"].rounded(x), x), 1e-4
    )
    assert report["first"].alone.sqnr_db == pytest.approx(sqnr(rounded, wanted), 1e-4)
    assert report["first"].operator == "conv2d relu"
    second = report["second"]
    assert second.alone.sqnr_db == pytest.approx(sqnr(alone, last), 1e-4)
    assert second.cumulative.sqnr_db == pytest.approx(sqnr(both, last), 1e-4)
    assert second.cumulative.max_abs == pytest.approx(float((both - last).abs().max()), 1e-4)
    cosine = torch.cosine_similarity(both.flatten(), last.flatten(), 0)
    assert second.cumulative.cosine == pytest.approx(float(cosine), 1e-6)
    part = torch.conv2d(wanted, grid["v"].rounded(v))
    assert second.weights is not None
    assert second.weights.sqnr_db == pytest.approx(sqnr(part, last), 1e-4)


def test_float_layers_say_why_and_add_nothing() -> None:
    report = error_report(calibrate(prepared(chain()), images(4)), images(2))
    row = report["exp"]
    assert (row.precision, row.reason) == ("float32", "EXP is too steep for 8 bits")
    assert row.alone.sqnr_db == math.inf
    assert row.cumulative.sqnr_db < 60
    assert report.stayed_float == [row]
    assert report.outputs["exp"].sqnr_db == pytest.approx(row.cumulative.sqnr_db)


def test_a_converted_graph_gives_the_same_report() -> None:
    graph_module = calibrate(prepared(pooled_convolution()), images(4))
    before = error_report(graph_module, images(3)).to_dicts()
    after = error_report(Pipeline((Freeze(),))(graph_module), images(3)).to_dicts()
    assert before == after
    assert [row["node"] for row in before] == ["x", "conv2d", "linear"]


def test_corrected_biases_are_no_error_of_the_float_model() -> None:
    """Float values come from the biases as they were; so a layer alone is as it was, too."""
    narrow = PRECISIONS["int8w4"].weights  # said here, as the usual range depends on corrections
    corrected = QuantConfig("int8w4", weights=narrow, equalize=False, refine_rounding=False)
    config = replace(corrected, correct_bias=False)
    plain = error_report(calibrate(prepared(chain(config)), images(16)), images(16))
    graph_module = calibrate(prepared(chain(corrected)), images(16))
    assert any("uncorrected_bias" in node.meta for node in graph_module.graph.nodes)
    report = error_report(graph_module, images(16))
    assert report["second"].alone.noise == pytest.approx(plain["second"].alone.noise, rel=1e-5)
    assert report["second"].cumulative.noise < plain["second"].cumulative.noise


def test_any_batching_gives_the_same_sums() -> None:
    graph_module = calibrate(prepared(chain()), images(4))
    single = error_report(graph_module, images(6))
    whole = error_report(graph_module, [torch.cat(images(6))])
    assert single.samples == whole.samples == 6
    for row, other in zip(single, whole, strict=True):
        assert row.cumulative.noise == pytest.approx(other.cumulative.noise, rel=1e-4)
        assert row.clipped == other.clipped


def test_clipped_values_are_counted() -> None:
    graph_module = calibrate(prepared(chain()), images(4))
    quantizer = module(graph_module, "relu")
    quantizer.scale = quantizer.scale / 8
    report = error_report(graph_module, images(4))
    row = report["first"]
    x = torch.cat(images(4))
    value = torch.conv2d(x, get_attribute(graph_module, "w"), get_attribute(graph_module, "b"))
    assert row.grid is not None
    limit = row.grid.high + row.grid.step / 2
    assert row.clipped_share == pytest.approx(float((value > limit).double().mean()))
    assert row.clipped_share > 0.1
    assert row.cause == "clipping"
    assert report.worst(1) == [row]
    assert "look at %first" in report.render()


def test_rows_sort_and_become_plain_data() -> None:
    report = error_report(calibrate(prepared(chain()), images(4)), images(2))
    ordered = [row.alone.sqnr_db for row in report.sorted("alone")]
    assert ordered == sorted(ordered)
    assert sum(row.share for row in report) == pytest.approx(1.0)
    first = report.to_dicts()[1]
    assert first["node"] == "first"
    assert first["alone_sqnr_db"] == report["first"].alone.sqnr_db
    assert all(not isinstance(value, ErrorSums) for value in first.values())
    with pytest.raises(InputError, match="cannot be sorted by 'size'.*\n.*use alone, cumulative"):
        report.sorted("size")
    with pytest.raises(InputError, match="no layer 'third'"):
        report["third"]


def test_the_graph_is_left_as_it_was() -> None:
    graph_module = calibrate(prepared(chain()), images(4))
    before = {name: value.clone() for name, value in graph_module.state_dict().items()}
    graph_module.train()
    x = images(1)[0]
    wanted = graph_module(x)[0]
    error_report(graph_module, images(2))
    assert graph_module.training
    assert torch.equal(graph_module(x)[0], wanted)
    assert all(torch.equal(before[k], value) for k, value in graph_module.state_dict().items())


def test_memory_does_not_grow_with_the_data() -> None:
    """What is kept is one row a layer, whatever passes."""
    graph_module = calibrate(prepared(chain()), images(4))
    report = error_report(graph_module, (image for image in images(40)))
    assert report.samples == 40
    assert len(report) == 4
    assert report["first"].alone.count == 40 * 6 * 6 * 6


@pytest.mark.parametrize("stage", ["float", "prepared"])
def test_a_graph_that_is_not_quantized_is_refused(stage: str) -> None:
    graph_module = chain() if stage == "float" else prepared(chain())
    what = "is not quantized" if stage == "float" else "observers cannot tell a range"
    with pytest.raises(CalibrationError, match=what):
        error_report(graph_module, images(1))


def test_no_data_is_an_error() -> None:
    graph_module = calibrate(prepared(chain()), images(1))
    with pytest.raises(CalibrationError, match="there are no data"):
        error_report(graph_module, [])


def test_a_real_graph_through_the_public_name() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    )
    graph_module = fq.prepare(model, (images(1)[0],))
    fq.calibrate(graph_module, images(4), progress=False)
    report = fq.error_report(graph_module, images(4, batch=2), progress=False)
    assert isinstance(report, ErrorReport)
    assert [(row.operator, row.module) for row in report] == [
        ("quantize", ""),
        ("conv2d relu", "0"),
    ]
    assert report.samples == 8
    assert min(row.cumulative.sqnr_db for row in report) > 30
