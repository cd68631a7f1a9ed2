"""Rounding weights by what they do: never worse on the data, on the grid, the user's untouched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import CalibrationError
from fxquant.ir.edit import get_attribute
from fxquant.ir.views import layer
from fxquant.quant.settle import fake_quantizes
from fxquant.quant.weight_rounding import columns, refine_rounding, spread_rounding

FOUR_BITS = fq.QuantConfig(precision="int8w4", equalize=False)


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
    found = spread_rounding(rows, (x @ x.T)[None], scale, -7, 7) * scale
    plain = (rows / scale).round().clamp(-7, 7) * scale
    assert ((found - rows) @ x).norm() < 0.7 * ((plain - rows) @ x).norm()


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


def calibrated(model: nn.Module) -> torch.fx.GraphModule:
    return fq.calibrate(fq.prepare(model, (images(1)[0],), FOUR_BITS), images(8))


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


def test_what_is_not_calibrated_is_refused() -> None:
    graph_module = fq.prepare(Net().eval(), (images(1)[0],), FOUR_BITS)
    with pytest.raises(CalibrationError, match="simulates nothing yet"):
        refine_rounding(graph_module, images(1))
    with pytest.raises(CalibrationError, match="there are no data"):
        refine_rounding(calibrated(Net().eval()), [])
