"""Scales that fit together: weights leave room for biases, outputs for products."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.fx import GraphModule

from fxquant.ir.edit import get_attribute
from fxquant.ir.state import state_of
from fxquant.quant.calibration import calibrate
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.settle import fake_quantizes, grid_of
from tests.passes.core_graphs import TABLE, Builder
from tests.passes.quantized_graphs import prepared


def scale(graph_module: GraphModule, name: str) -> torch.Tensor:
    module = get_attribute(graph_module, f"quantizers.{name}")
    assert isinstance(module, FakeQuantize)
    return module.scale


def test_tied_weights_share_scales_that_suit_every_bias() -> None:
    b = Builder(w=torch.full((4, 4), 1e-20), small=torch.full((4,), 1e-3), large=torch.ones(4))
    x = b.input("x", torch.rand(1, 4))
    first = b("linear", x, b.get("w"), b.get("large"))
    last = b("linear", first, b.get("w"), b.get("small"))
    graph_module = calibrate(prepared(b.finish(last)), [torch.rand(1, 4)])
    assert len({str(node.target) for node, m in fake_quantizes(graph_module) if m.constant}) == 1
    units = float(scale(graph_module, "x_quant")) * scale(graph_module, "w")
    assert (1.0 / units <= 2.0**30 * 1.001).all()


@pytest.mark.parametrize("limit", [None, 128.0])
def test_an_output_of_zeros_does_not_get_a_scale_too_fine(limit: float | None) -> None:
    b = Builder(w=torch.full((2, 4), -1000.0))
    x = b.input("x", torch.rand(1, 4))
    graph_module = b.finish(b("relu", b("linear", x, b.get("w"))))
    state_of(graph_module).constraints = replace(TABLE, largest_ratio=limit)
    graph_module = calibrate(prepared(graph_module), [100 * torch.rand(1, 4) + 1])
    product = scale(graph_module, "x_quant") * scale(graph_module, "w").max()
    ratio = float(product / scale(graph_module, "relu"))
    assert ratio == pytest.approx(128) if limit else ratio > 256


def test_grids_are_found_through_movers() -> None:
    b = Builder()
    x = b.input("x", torch.rand(1, 4))
    graph_module = prepared(b.finish(b("reshape", b("relu", x), [4])))
    by_name = {node.name: node for node in graph_module.graph.nodes}
    found = grid_of(graph_module, by_name["reshape"])
    assert found is get_attribute(graph_module, "quantizers.relu")
    assert grid_of(graph_module, by_name["x"]) is None
