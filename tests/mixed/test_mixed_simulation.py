"""The mixed simulation against graphs that are really prepared that way."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import CalibrationError
from fxquant.mixed.layers import layers_of
from fxquant.mixed.noise import Noise
from fxquant.mixed.simulation import Simulation
from fxquant.quant.spec import FLOAT32, PRECISIONS, Precision
from tests.mixed.attention_nets import pictures, transformer
from tests.mixed.wide_nets import rows, wide

PLAIN = fq.QuantConfig(equalize=False, correct_bias=False)


class Branches(nn.Module):
    """Fused activations, a concatenation, pools and a shared value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        y = torch.sigmoid(self.b(x))
        z = torch.nn.functional.max_pool2d(torch.cat([x, y], 1), 2)
        return torch.relu(self.c(z)).flatten(1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "branches": Branches,
    "transformer": functools.partial(transformer, depth=1),
}


def prepared_with(
    model: nn.Module, data: list[Tensor], config: fq.QuantConfig = PLAIN
) -> GraphModule:
    return fq.calibrate(fq.prepare(model, (data[0][:1],), config), data, progress=False)


@functools.cache
def prepared_transformer() -> GraphModule:
    return prepared_with(transformer(depth=1), pictures(2))


def noise_of(model: nn.Module, other: nn.Module, data: list[Tensor]) -> Noise:
    noise = Noise()
    with torch.no_grad():
        for batch in data:
            for sample in batch.split(1):
                noise.add([model(sample)], [other(sample)])
    return noise


def simulated(prepared: GraphModule, data: list[Tensor], mixture: Mapping[str, Precision]) -> float:
    (noise,) = Simulation(prepared).measure([mixture], data)
    return noise.ratio


@pytest.mark.parametrize("name", MODELS)
def test_all_as_prepared_and_all_in_float(name: str) -> None:
    """In float nothing of the corrections is left but the equalization, which is exact."""
    torch.manual_seed(0)
    model, data = MODELS[name]().eval(), pictures(2)
    prepared = prepared_with(model, data, fq.QuantConfig())
    wanted = noise_of(model, prepared, data).ratio
    assert simulated(prepared, data, {}) == pytest.approx(wanted, rel=1e-3)
    simulation = Simulation(prepared)
    assert simulated(prepared, data, simulation.floats) == 0


@pytest.mark.parametrize("name", MODELS)
def test_one_layer_in_float_is_what_a_rule_would_give(name: str) -> None:
    torch.manual_seed(0)
    model, data = MODELS[name]().eval(), pictures(2)
    prepared = prepared_with(model, data)
    # A float softmax gets a range of its own before the next operator, not the prescribed one.
    layers = [layer for layer in layers_of(prepared) if layer.operator != "softmax"]
    for layer in layers[1 :: max(1, len(layers) // 3)]:
        names = [node for each in layers_of(prepared) for node in each.nodes]
        rules = tuple(
            fq.Rule("float32" if node in layer.nodes else "int8", node=node) for node in names
        )
        config = fq.QuantConfig(equalize=False, correct_bias=False, rules=rules)
        wanted = noise_of(model, prepared_with(model, data, config), data).ratio
        found = simulated(prepared, data, dict.fromkeys(layer.nodes, FLOAT32))
        assert found == pytest.approx(wanted, rel=0.02, abs=1e-9), layer.name


@pytest.mark.parametrize("name", ["int8w4", "int4_weights", "int8_weights", "float16", "dynamic"])
def test_narrow_weights_are_what_a_rule_would_give(name: str) -> None:
    plain = dataclasses.replace(PLAIN, refine_rounding=False)
    model, data = wide(), rows(2)
    prepared = prepared_with(model, data, plain)
    layer = next(each for each in layers_of(prepared) if each.name == "second")
    mixture = layer.assigned(PRECISIONS[name])
    rules = tuple(fq.Rule(precision.name, node=node) for node, precision in mixture.items())
    config = dataclasses.replace(plain, rules=rules)
    wanted = noise_of(model, prepared_with(model, data, config), data).ratio
    assert simulated(prepared, data, mixture) == pytest.approx(wanted, rel=0.02)
    # alone, nothing else adds noise
    alone = {**Simulation(prepared).floats, **mixture}
    others = tuple(
        fq.Rule("float32", node=node)
        for each in layers_of(prepared)
        for node in each.nodes
        if each.name != "second"
    )
    config = dataclasses.replace(plain, rules=(*rules, *others))
    wanted = noise_of(model, prepared_with(model, data, config), data).ratio
    assert simulated(prepared, data, alone) == pytest.approx(wanted, rel=0.02)


def test_sixteen_bits_are_nearly_float() -> None:
    data, prepared = pictures(2), prepared_transformer()
    wide = dict.fromkeys(Simulation(prepared).floats, PRECISIONS["int16x8"])
    narrow = dict.fromkeys(Simulation(prepared).floats, PRECISIONS["int8w4"])
    eight = simulated(prepared, data, {})
    assert 0 < simulated(prepared, data, wide) < eight < simulated(prepared, data, narrow)


def test_several_mixtures_in_one_pass_are_those_one_by_one() -> None:
    data, prepared = pictures(2), prepared_transformer()
    simulation = Simulation(prepared)
    mixtures = [{}, simulation.floats, {"stem": FLOAT32}, {"head": FLOAT32}]
    together = simulation.measure(mixtures, iter(data))
    assert [n.ratio for n in together] == [simulated(prepared, data, m) for m in mixtures]


def test_no_data() -> None:
    simulation = Simulation(prepared_transformer())
    with pytest.raises(CalibrationError, match="no data"):
        simulation.measure([{}], [])


def test_a_graph_that_was_not_calibrated() -> None:
    prepared = fq.prepare(transformer(depth=1), (pictures(1)[0][:1],))
    with pytest.raises(CalibrationError, match="cannot tell a range"):
        Simulation(prepared)


def test_layers_hold_what_is_fused() -> None:
    data = pictures(1)
    prepared = prepared_with(Branches().eval(), data)
    found = {layer.name: layer for layer in layers_of(prepared)}
    assert found["a"].nodes == ("a", "relu")
    assert (found["a"].weights, found["a"].biases, found["a"].macs) == (36, 4, 36 * 64)
    assert found["c"].macs == 8 * 4 * 16
    assert found["a"].weight_bytes(FLOAT32) == 4 * 40
    assert found["a"].weight_bytes(PRECISIONS["int8"]) == 36 + 16
    assert found["a"].weight_bytes(PRECISIONS["int8w4"]) == 18 + 16
    assert "max_pool2d" not in found
