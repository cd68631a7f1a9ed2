"""Integers of several dtypes in one graph, and weights with one scale: files against simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.backends.tflite.reader import read_bytes
from fxquant.backends.tflite.sample_outputs import run_graph
from fxquant.quant.config import Rule

KERNELS = ("reference", "optimized", "xnnpack")


class Net(nn.Module):
    """Two convolutions and a dense layer, put together by a function."""

    def __init__(self, function: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.a = nn.Conv2d(4, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(6, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def samples() -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(2, 4, 6, 6, generator=generator) for _ in range(3)]


def compiled(model: nn.Module, config: fq.QuantConfig, **options: Any) -> Lowered:
    data = samples()
    inputs = (data[0][:1],)
    return fq.compile(
        model.eval(), inputs, quantize=config, calibration=data, progress=False, **options
    )


def error_of(model: nn.Module, lowered: Lowered) -> float:
    x = samples()[0][:1]
    with torch.no_grad():
        wanted = model(x)
    (found,) = run_graph(lowered, (x,))
    return float((found - wanted).abs().max() / wanted.abs().max())


class Mix(NamedTuple):
    """A net, the rules that mix its precisions, and how many QUANTIZE they cost."""

    function: Callable[[Net, Tensor], Tensor]
    rules: tuple[Rule, ...]
    quantize: int


def wide(**condition: str) -> Rule:
    return Rule(precision="int16x8", **condition)


def old(**condition: str) -> Rule:
    return Rule(precision="uint8", **condition)


def joined(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    return torch.cat([y, net.b(y)], 1)


MIXES = {
    "second-16": Mix(lambda n, x: n.b(n.a(x)), (wide(node="b"),), 2),
    "first-16": Mix(lambda n, x: n.b(n.a(x)), (wide(node="a"),), 2),
    "first-16-relu": Mix(lambda n, x: n.b(torch.relu(n.a(x))), (wide(node="a"),), 2),
    "add": Mix(lambda n, x: n.a(x) + n.b(n.a(x)), (wide(op="add"),), 3),
    "cat": Mix(joined, (wide(node="b"),), 2),
    "average": Mix(lambda n, x: n.b(functional.avg_pool2d(n.a(x), 2)), (wide(op="avg_pool2d"),), 3),
    "maximum": Mix(lambda n, x: n.b(functional.max_pool2d(n.a(x), 2)), (wide(op="max_pool2d"),), 1),
    "sigmoid": Mix(lambda n, x: n.b(torch.sigmoid(n.a(x))), (wide(op="sigmoid"),), 3),
    "mean": Mix(lambda n, x: n.a(x).mean((2, 3)), (wide(op="mean"),), 2),
    "uint8-int16": Mix(lambda n, x: n.b(n.a(x)), (old(node="a"), wide(node="b")), 2),
    "int16-uint8": Mix(lambda n, x: n.b(n.a(x)), (wide(node="a"), old(node="b")), 3),
    "uint8-int8": Mix(lambda n, x: n.b(n.a(x)), (old(node="a"),), 2),
    "uint8-cat": Mix(joined, (old(node="b"),), 2),
}


@pytest.mark.parametrize("name", list(MIXES))
def test_dtypes_change_by_quantize_where_regions_meet(name: str) -> None:
    mix = MIXES[name]
    model = Net(mix.function)
    lowered = compiled(model, fq.QuantConfig(rules=mix.rules))
    assert lowered.report.operators["QUANTIZE"] == mix.quantize
    assert error_of(model, lowered) < 0.02
    for kernels in KERNELS:
        fq.verify(lowered, samples()[0].split(1), kernels=kernels).check()


def test_integers_only_may_have_8_and_16_bits() -> None:
    rules = (Rule(precision="int8", node="b"),)
    lowered = compiled(Net(MIXES["cat"].function), fq.QuantConfig("int16x8", rules=rules))
    assert "DEQUANTIZE" in lowered.report.operators
    options = {"require": "int16x8"}
    only = compiled(Net(joined), fq.QuantConfig("int16x8", rules=rules), **options)
    assert "DEQUANTIZE" not in only.report.operators


LAYERS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "convolution": lambda n, x: n.b(torch.relu(n.a(x))),
    "dense": lambda n, x: n.head(n.a(x)),
}


@pytest.mark.parametrize("precision", ["int8", "uint8", "int16x8"])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_one_scale_for_all_weights_of_a_layer(layer: str, precision: str) -> None:
    model = Net(LAYERS[layer])
    lowered = compiled(model, fq.QuantConfig(precision, per_channel=False))
    tensors = read_bytes(lowered.to_bytes()).main.tensors
    grids = [tensor.quantization for tensor in tensors if tensor.quantization is not None]
    assert all(len(grid.scale) == 1 for grid in grids)
    assert error_of(model, lowered) < 0.02
    for kernels in KERNELS:
        fq.verify(lowered, samples()[0].split(1), kernels=kernels).check()


def test_uint8_has_one_scale_for_weights_whatever_is_asked_for() -> None:
    lowered = compiled(Net(LAYERS["convolution"]), fq.QuantConfig("uint8", per_channel=True))
    tensors = read_bytes(lowered.to_bytes()).main.tensors
    weights = [tensor for tensor in tensors if tensor.dtype == "uint8" and len(tensor.shape) == 4]
    assert len(weights) >= 2
    assert all(each.quantization and len(each.quantization.scale) == 1 for each in weights)


def test_slopes_beside_weights_of_four_bits_have_eight() -> None:
    torch.manual_seed(0)
    slopes = nn.PReLU(6)
    nn.init.uniform_(slopes.weight, -0.5, 0.9)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), slopes, nn.Conv2d(6, 4, 1)).eval()
    data = samples()
    lowered = fq.compile(
        model, (data[0],), quantize="int8w4", calibration=data, progress=False, verify=False
    )
    for kernels in KERNELS:
        fq.verify(lowered, data, kernels=kernels).check()


class CrossAttention(nn.Module):
    """Attention between values that are not one tensor: its packed weights are taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.norm(x), self.norm(x.flip(1))
        result: Tensor = self.attention(query, key, key, need_weights=False)[0]
        return x + result


def test_packed_weights_that_are_taken_apart_are_constants() -> None:
    torch.manual_seed(0)
    data = [torch.randn(1, 5, 8) for _ in range(4)]
    lowered = fq.compile(
        CrossAttention().eval(), (data[0],), require="int8", calibration=data, progress=False
    )
    fq.verify(lowered, data).check()
    assert "SPLIT" not in lowered.report.operators
