"""Bias correction: channel means like the float graph's, and nothing of the user's written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from fxquant.errors import CalibrationError
from fxquant.ir.validity import check_graph
from fxquant.quant.bias_correction import correct_bias
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from tests.passes.core_graphs import Builder, pooled_convolution
from tests.passes.quantized_graphs import prepared

COARSE = QuantConfig(precision="int8w4")
"""Four-bit weights, whose errors are large enough to see."""


def net(with_bias: bool) -> GraphModule:
    torch.manual_seed(0)
    tensors = {"w": torch.randn(6, 3, 3, 3), "v": torch.randn(5, 6, 3, 3), "b": torch.randn(6)}
    b = Builder(**tensors)
    x = b.input("x", torch.randn(1, 3, 8, 8))
    bias = (b.get("b"),) if with_bias else ()
    first = b("relu", b("conv2d", x, b.get("w"), *bias))
    return b.finish(b("conv2d", first, b.get("v")), config=COARSE)


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(4, 3, 8, 8, generator=generator) for _ in range(count)]


def mean_error(graph_module: GraphModule, wanted: GraphModule) -> Tensor:
    x = [image for batch in images(8) for image in batch.split(1)]
    with torch.no_grad():
        errors = [graph_module(image)[0] - wanted(image)[0] for image in x]
    return torch.cat(errors).mean((0, 2, 3)).abs().max()


@pytest.mark.parametrize("with_bias", [True, False])
def test_means_come_back(with_bias: bool) -> None:
    wanted = net(with_bias)
    graph_module = calibrate(prepared(net(with_bias)), images(8))
    before = mean_error(graph_module, wanted)
    assert correct_bias(graph_module, images(8)) is graph_module
    check_graph(graph_module)
    assert mean_error(graph_module, wanted) < 0.25 * before


def test_the_user_s_tensors_are_not_touched() -> None:
    graph_module = calibrate(prepared(pooled_convolution()), [torch.randn(1, 3, 8, 8)])
    names = ("conv_weight", "conv_bias", "fc_weight", "fc_bias")
    before = {name: getattr(graph_module, name).detach().clone() for name in names}
    correct_bias(graph_module, [torch.randn(2, 3, 8, 8)])
    assert all(torch.equal(getattr(graph_module, name), value) for name, value in before.items())


def test_only_as_many_samples_as_asked_for() -> None:
    drawn = []

    def data() -> object:
        for batch in images(8):
            drawn.append(batch)
            yield batch

    graph_module = calibrate(prepared(net(True)), images(2))
    correct_bias(graph_module, data(), samples=6)  # type: ignore[arg-type]
    assert len(drawn) == 2


def test_it_needs_a_calibrated_graph_and_data() -> None:
    with pytest.raises(CalibrationError, match="run calibrate before"):
        correct_bias(prepared(net(True)), images(1))
    with pytest.raises(CalibrationError, match="no data"):
        correct_bias(calibrate(prepared(net(True)), images(1)), [])
