"""Bias correction: channel means like the float graph's, and nothing of the user's written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import CalibrationError
from fxquant.ir.edit import tensor_at
from fxquant.ir.validity import check_graph
from fxquant.quant.bias_correction import (
    certain_mean,
    channel_axis,
    correct_bias,
    restore_bias,
)
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from tests.passes.core_graphs import Builder, pooled_convolution
from tests.passes.quantized_graphs import prepared

COARSE = QuantConfig(precision="int8w4", equalize=False, correct_bias=False, refine_rounding=False)
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


def biases(graph_module: GraphModule) -> list[Tensor]:
    nodes = [n for n in graph_module.graph.nodes if channel_axis(n) is not None]
    return [tensor_at(graph_module, node.args[2]) for node in nodes]


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_second_correction_replaces_the_first(with_bias: bool) -> None:
    graph_module = calibrate(prepared(net(with_bias)), images(4))
    once = [bias.clone() for bias in biases(correct_bias(graph_module, images(4)))]
    twice = biases(correct_bias(graph_module, images(4)))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    restore_bias(graph_module)
    check_graph(graph_module)
    layers = [n for n in graph_module.graph.nodes if channel_axis(n) is not None]
    assert [len(n.args) > 2 and n.args[2] is not None for n in layers] == [with_bias, False]


def test_what_differs_from_sample_to_sample_is_not_corrected() -> None:
    steady, mixed = torch.ones(8) + 0.01 * torch.randn(8), torch.tensor([1.0, -1.1] * 4)
    found = certain_mean(torch.stack([steady, mixed], 1))
    assert torch.allclose(found[0], steady.mean(), rtol=1e-3)
    assert found[1].abs() < 0.05 * mixed.mean().abs()
    assert torch.equal(certain_mean(steady[None]), steady)


def test_calls_of_several_batch_sizes() -> None:
    graph_module = calibrate(prepared(net(True)), images(4))
    together = torch.cat(images(4))
    even = [bias.clone() for bias in biases(correct_bias(graph_module, together.split(4)))]
    uneven = biases(correct_bias(graph_module, together.split(5)))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(even, uneven, strict=True))


def test_an_unbatched_convolution() -> None:
    torch.manual_seed(0)
    b = Builder(w=torch.randn(6, 3, 3, 3))
    x = b.input("x", torch.randn(3, 8, 8))
    wanted = b.finish(b("conv2d", x, b.get("w")), config=COARSE)
    data = list(torch.cat(images(2)))
    graph_module = correct_bias(calibrate(prepared(wanted), data), data)
    assert [bias.shape for bias in biases(graph_module)] == [(6,)]


def test_layers_that_only_store_bytes_are_corrected_too() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    data = [torch.rand(16, 12) for _ in range(4)]
    wanted = model(data[0]).mean(0)
    for precision, changes in (("dynamic", True), ("int8_weights", True), ("float16", False)):
        plain = fq.prepare(model, (data[0],), fq.QuantConfig(precision))
        fq.calibrate(plain, data, progress=False)
        biases = [name for name, _ in plain.named_parameters() if "bias_1" in name]
        assert bool(biases) == changes
        assert (plain(data[0]).mean(0) - wanted).abs().max() < 0.1
