"""Rounding weights by what they do: never worse on the data, on the grid, the user's untouched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import CalibrationError
from fxquant.ir.edit import get_attribute
from fxquant.ir.views import layer
from fxquant.mixed.simulation import Simulation, _Run
from fxquant.quant.settle import fake_quantizes
from fxquant.quant.spec import FLOAT32
from fxquant.quant.weight_rounding import (
    BLOCK,
    columns,
    damped,
    refine_rounding,
    restore_weights,
    spread_rounding,
)

FOUR_BITS = fq.QuantConfig(precision="int8w4", equalize=False)
PLAIN = replace(FOUR_BITS, refine_rounding=False)


def test_without_correlation_it_is_plain_rounding() -> None:
    torch.manual_seed(0)
    rows, scale = torch.randn(2, 5, 7).double(), torch.full((2, 5, 1), 0.3).double()
    moments = torch.eye(7).double().expand(2, 7, 7)
    found = spread_rounding(rows, moments, scale, -7, 7)
    assert torch.equal(found, (rows / scale).round().clamp(-7, 7))


def test_with_correlation_products_are_nearer() -> None:
    torch.manual_seed(0)
    mixing = torch.randn(16, 16).double()
    x = mixing @ torch.randn(16, 400).double() + 2
    rows, scale = torch.randn(1, 8, 16).double(), torch.full((1, 8, 1), 0.4).double()
    found = spread_rounding(rows, damped((x @ x.T)[None]), scale, -7, 7) * scale
    plain = (rows / scale).round().clamp(-7, 7) * scale
    assert ((found - rows) @ x).norm() < 0.7 * ((plain - rows) @ x).norm()


def test_blocks_give_what_single_columns_give(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    count = 2 * BLOCK + 30
    x = torch.randn(count, count).double() @ torch.randn(count, 2 * count).double() + 2
    rows, scale = torch.randn(1, 4, count).double(), torch.full((1, 4, 1), 0.4).double()
    moments = damped((x @ x.T)[None])
    found = spread_rounding(rows, moments, scale, -7, 7)
    monkeypatch.setattr("fxquant.quant.weight_rounding.BLOCK", 1)
    assert torch.equal(found, spread_rounding(rows, moments, scale, -7, 7))


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), (2, 4, 11, 9)),
    "grouped": (nn.Conv2d(4, 6, (3, 1), groups=2), (2, 4, 6, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 6, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "linear": (nn.Linear(4, 6), (2, 3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_columns_times_rows_is_what_the_layer_computes(name: str) -> None:
    module, shape = LAYERS[name]
    graph_module = fq.Pipeline.default("float")(fq.trace(module, (torch.zeros(shape),)))
    (view,) = filter(None, map(layer, graph_module.graph.nodes))
    groups, x = getattr(module, "groups", 1), torch.randn(shape)
    weight = module.get_parameter("weight").detach()
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    found = [rows @ sample for sample in columns(view, weight, x, groups)]
    bias = module.get_parameter("bias")
    with torch.no_grad():
        wanted = module(x) - (bias if name == "linear" else bias.view(-1, *[1] * (x.dim() - 2)))
    if name == "linear":
        assert torch.allclose(found[0][0].T.reshape(2, 3, 6), wanted, atol=1e-5)
    else:
        products = torch.stack([each.reshape(weight.shape[0], -1) for each in found])
        assert torch.allclose(products, wanted.flatten(2), atol=1e-5)


class Net(nn.Module):
    """A convolution, a depthwise one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.conv(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    smooth = nn.AvgPool2d(3, 1)  # neighboring pixels are alike, as in pictures
    return [smooth(torch.rand(4, 3, 12, 12, generator=generator)) for _ in range(count)]


def calibrated(model: nn.Module, config: fq.QuantConfig = PLAIN) -> torch.fx.GraphModule:
    return fq.calibrate(fq.prepare(model, (images(1)[0],), config), images(8), progress=False)


def weights_of(graph_module: torch.fx.GraphModule) -> list[Tensor]:
    constants = [node for node, module in fake_quantizes(graph_module) if module.constant]
    paths = [str(node.all_input_nodes[0].target) for node in constants]
    return [get_attribute(graph_module, path).detach() for path in paths]


def are_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_the_output_is_nearer_on_other_data() -> None:
    model = Net().eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    graph_module = calibrated(model)
    before = fq.error_report(graph_module, images(12)[8:])
    assert refine_rounding(graph_module, images(8)) is graph_module
    after = fq.error_report(graph_module, images(12)[8:])
    for name, sums in before.outputs.items():
        assert after.outputs[name].signal == pytest.approx(sums.signal)  # the same float model
    for row in before:
        if row.weights is not None:
            weights = after[row.node].weights
            assert weights is not None
            assert weights.noise < 0.95 * row.weights.noise
    frozen = fq.error_report(fq.convert(graph_module), images(12)[8:])
    assert frozen.to_dicts() == after.to_dicts()
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def test_weights_stay_on_their_grid_when_they_are_frozen() -> None:
    graph_module = refine_rounding(calibrated(Net().eval()), images(4))
    trained = [(node, m) for node, m in fake_quantizes(graph_module) if m.constant]
    assert len(trained) == 3
    for node, module in trained:
        weight = get_attribute(graph_module, str(node.all_input_nodes[0].target)).detach()
        assert torch.equal(module(weight), weight)
        scale = module.scale.view(-1, *[1] * (weight.dim() - 1))
        assert float((weight / scale).abs().max()) < 7.01
    x = images(1)[0]
    assert torch.equal(fq.convert(graph_module)(x), graph_module(x))


@pytest.mark.parametrize("precision", ["int8w4", "dynamic4", "int4_weights"])
def test_calibrate_refines_four_bits_by_itself(precision: str) -> None:
    model = Net().eval()
    plain, refined = (
        calibrated(
            model,
            replace(PLAIN, precision=precision, refine_rounding=asked, correct_bias=False),
        )
        for asked in (False, None)
    )
    assert not are_equal(weights_of(plain), weights_of(refined))
    noises = [
        next(iter(fq.error_report(graph, images(12)[8:]).outputs.values())).noise
        for graph in (plain, refined)
    ]
    assert noises[1] < 0.8 * noises[0]
    x = images(1)[0]
    with torch.no_grad():
        assert torch.equal(fq.convert(refined)(x), refined(x))


def test_eight_bits_are_refined_only_when_asked() -> None:
    eight = replace(FOUR_BITS, precision="int8")
    default, off, on = (
        weights_of(calibrated(Net().eval(), replace(eight, refine_rounding=asked)))
        for asked in (None, False, True)
    )
    assert are_equal(default, off) and not are_equal(default, on)


def test_layers_that_are_refined_keep_their_biases() -> None:
    rules = (fq.Rule("int8", module="depthwise"),)
    graph_module = calibrated(Net().eval(), replace(FOUR_BITS, rules=rules))
    marks = [
        ("unrounded_weight" in node.meta, "uncorrected_bias" in node.meta)
        for node in filter(layer, graph_module.graph.nodes)
    ]
    assert sorted(marks) == [(False, True), (True, False), (True, False)]


def test_calibrating_and_refining_again_begin_with_the_float_weights() -> None:
    model = Net().eval()
    once = weights_of(calibrated(model, FOUR_BITS))
    graph_module = calibrated(model, FOUR_BITS)
    fq.calibrate(graph_module, images(8), progress=False)
    assert are_equal(once, weights_of(graph_module))
    first = weights_of(refine_rounding(graph_module, images(3)))
    assert are_equal(first, weights_of(refine_rounding(graph_module, images(3))))
    restore_weights(graph_module)
    assert are_equal(weights_of(graph_module), weights_of(calibrated(model)))


def simulation_outputs(simulation: Simulation, batch: Tensor) -> Tensor:
    """What the simulation takes as the float model's result."""
    ((graph, inputs),) = simulation.runner.calls(batch, 0)
    run = _Run(simulation, graph.graph, inputs)
    return run.outputs(run.all(simulation.floats))[0]


def test_other_precisions_are_tried_on_the_float_weights() -> None:
    model, data = Net().eval(), images(2)
    noises = []
    for config in (PLAIN, FOUR_BITS):
        prepared = calibrated(model, replace(config, correct_bias=False))
        simulation = Simulation(prepared)
        first = next(iter(simulation.floats))
        floats = dict.fromkeys(simulation.floats, FLOAT32)
        noises.append(simulation.measure([floats, {first: FLOAT32}], data))
        with torch.no_grad():
            wanted = model(data[0])
            found = simulation_outputs(simulation, data[0])
        assert torch.allclose(found, wanted, atol=1e-5)
    assert noises[0][0].ratio == noises[1][0].ratio == 0
    assert noises[1][1].ratio < noises[0][1].ratio


def test_training_is_not_refined() -> None:
    model = Net().eval()
    prepared = fq.prepare_qat(model, (images(1)[0],), FOUR_BITS)
    before = weights_of(prepared)
    fq.calibrate(prepared, images(2), progress=False)
    assert are_equal(before, weights_of(prepared))


def test_the_choice_is_kept_in_yaml() -> None:
    for asked in (None, False, True):
        config = replace(FOUR_BITS, refine_rounding=asked)
        assert fq.QuantConfig.from_yaml(config.to_yaml()) == config
        assert ("refine_rounding" in config.to_yaml()) == (asked is not None)


def test_rows_that_are_too_long_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxquant.quant.weight_rounding.LONGEST", 10)
    layers = filter(layer, calibrated(Net().eval(), FOUR_BITS).graph.nodes)
    marked = [node.target for node in layers if "unrounded_weight" in node.meta]
    assert len(marked) == 2  # the first convolution has 27 weights a row


def test_what_is_not_calibrated_is_refused() -> None:
    graph_module = fq.prepare(Net().eval(), (images(1)[0],), FOUR_BITS)
    with pytest.raises(CalibrationError, match="simulates nothing yet"):
        refine_rounding(graph_module, images(1))
    with pytest.raises(CalibrationError, match="there are no data"):
        refine_rounding(calibrated(Net().eval()), [])
