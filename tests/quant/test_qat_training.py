"""prepare_qat, an ordinary loop, convert, lower: what is trained is what LiteRT computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.registry import get_backend
from fxquant.errors import CalibrationError, InputError
from fxquant.quant.arithmetic import symmetric_parameters
from fxquant.quant.config import QuantConfig
from fxquant.quant.settle import fake_quantizes
from tests.quant.qat_models import Picture, example, train, with_signs

litert = pytest.mark.skipif(
    not get_backend("tflite").can_verify(), reason="LiteRT is not installed"
)


def trained(config: QuantConfig | None = None) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    prepared = fq.prepare_qat(with_signs(Picture()), example(), config)
    losses = train(prepared, 30, rate=0.005)
    assert sum(losses[-5:]) < sum(losses[:5])
    return prepared.eval()


@litert
@pytest.mark.parametrize("per_channel", [True, False])
def test_what_is_trained_is_what_litert_computes(per_channel: bool) -> None:
    prepared = trained(QuantConfig(per_channel=per_channel))
    frozen = fq.convert(prepared)
    lowered = fq.lower(frozen)
    x = torch.randn(2, 3, 8, 8)
    fq.verify(lowered, [(x,)]).check()
    step = float(prepared.get_buffer("quantizers.head.scale"))
    assert (frozen(x) - prepared(x)).abs().max() <= 2.01 * step
    assert (lowered.graph_module(x) - prepared(x)).abs().max() <= 4.01 * step


def test_the_frozen_weights_are_the_trained_integers() -> None:
    prepared = trained()
    frozen = fq.convert(prepared)
    modules = {str(n.target): m for n, m in fake_quantizes(prepared)}
    for path in ("stem", "depthwise", "last", "head", "gate"):
        quantizer = modules[f"quantizers.{path}_weight"]
        weight = prepared.get_parameter(f"{path}.weight").detach()
        quantizer(weight)
        shape = [-1, *[1] * (weight.dim() - 1)]
        mine = torch.round(weight / quantizer.scale.view(shape))
        scale = frozen.get_buffer(f"{path}_weight_scale").view(shape)
        its = torch.round(frozen.get_parameter(f"{path}.weight").detach() / scale)
        assert torch.equal(mine.abs(), its.abs()), path


class ConvNorm(nn.Module):
    """One layer and its batch norm."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.layer(x)))


def published(layer: nn.Module, norm: nn.Module, x: Tensor, per_channel: bool) -> Tensor:
    """Krishnamoorthi 2018: round the scaled weights, convolve, divide, normalize."""
    assert isinstance(norm.running_var, Tensor) and isinstance(norm.weight, Tensor)
    assert isinstance(layer.weight, Tensor) and isinstance(norm.eps, float)
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).view(-1, 1, 1, 1)
    scaled = layer.weight * scale
    low, high = (scaled.amin((1, 2, 3)), scaled.amax((1, 2, 3)))
    if not per_channel:
        low, high = low.min(), high.max()
    step = symmetric_parameters(low, high, -127, 127).scale.view(-1, 1, 1, 1)
    rounded = torch.round(scaled / step).clamp(-127, 127) * step
    result: Tensor = norm(F.conv2d(x, rounded) / scale.view(1, -1, 1, 1))
    return F.relu(result)


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_arithmetic_is_the_published_one(per_channel: bool) -> None:
    torch.manual_seed(0)
    model = with_signs(ConvNorm(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)))
    prepared = fq.prepare_qat(model, example(), QuantConfig(per_channel=per_channel))
    for _, module in fake_quantizes(prepared):
        module.quantizing = module.constant
    x = torch.randn(5, 3, 8, 8)
    reference = copy.deepcopy(model)
    expected = published(reference.layer, reference.norm, x, per_channel)  # type: ignore[arg-type]
    found = prepared(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    wanted = reference.norm.running_var  # type: ignore[union-attr]
    assert torch.allclose(prepared.get_buffer("norm.running_var"), wanted)  # type: ignore[arg-type]


LAYERS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("conv1d", lambda: ConvNorm(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6, momentum=None)), (3, 9)),
    ("grouped", lambda: ConvNorm(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (4, 8, 8)),
    ("up", lambda: ConvNorm(nn.ConvTranspose2d(3, 6, 2, 2), nn.BatchNorm2d(6)), (3, 5, 5)),
    ("linear", lambda: ConvNorm(nn.Linear(7, 6), nn.BatchNorm1d(6, eps=1e-3)), (7,)),
    ("plain", lambda: ConvNorm(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False)), (3, 8, 8)),
    ("standalone", lambda: ConvNorm(nn.ReLU(), nn.BatchNorm2d(3)), (3, 8, 8)),
    ("zero", lambda: ConvNorm(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), (3, 8, 8)),
]


@litert
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("name", "make", "shape"), LAYERS, ids=[row[0] for row in LAYERS])
def test_every_layer_with_its_batch_norm(
    name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], per_channel: bool
) -> None:
    if name == "standalone" and not per_channel:
        pytest.skip("its weights are exact only with a scale for each channel")
    torch.manual_seed(0)
    model = make()
    if name != "plain":
        with_signs(model)
    if name == "zero":
        model.get_parameter("norm.weight").data[2] = 0
    config = QuantConfig(per_channel=per_channel)
    prepared = fq.prepare_qat(model, (torch.randn(2, *shape),), config)
    train(prepared, 3, lambda: torch.randn(4, *shape), rate=1e-3)
    prepared.eval()
    frozen = fq.convert(prepared)
    x = torch.randn(2, *shape)
    error = (frozen(x) - prepared(x)).abs().max() / prepared(x).abs().max()
    assert error.item() < 0.009  # one step of 255, where rounding falls to the other side
    fq.verify(fq.lower(frozen), [(x,)]).check()


class Shared(nn.Module):
    """One layer called twice, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.tied, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.tied.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = x + F.relu(self.norm(self.conv(x)))
        return F.relu(self.other(self.tied(x)))


@litert
@pytest.mark.parametrize("per_channel", [True, False])
def test_shared_modules_and_tied_weights(per_channel: bool) -> None:
    torch.manual_seed(0)
    config = QuantConfig(per_channel=per_channel)
    prepared = fq.prepare_qat(with_signs(Shared()), example(), config)
    assert prepared.get_parameter("tied.weight") is prepared.get_parameter("conv.weight")
    train(prepared, 3, rate=1e-3)
    prepared.eval()
    frozen = fq.convert(prepared)
    x = torch.randn(2, 3, 8, 8)
    error = (frozen(x) - prepared(x)).abs().max() / prepared(x).abs().max()
    assert error.item() < 0.009
    fq.verify(fq.lower(frozen), [(x,)]).check()


def test_the_model_is_not_changed_and_the_copy_is_in_its_mode() -> None:
    model = Picture()
    model.stem_bn.eval()
    state = copy.deepcopy(model.state_dict())
    prepared = fq.prepare_qat(model, example())
    assert prepared.training and prepared.get_submodule("pre").training
    assert not prepared.get_submodule("stem_bn").training
    train(prepared, 2)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not fq.prepare_qat(model.eval(), example()).training


def test_batches_of_any_size() -> None:
    prepared = fq.prepare_qat(Picture(), example(1))
    for batch in (1, 3, 8):
        assert prepared(torch.randn(batch, 3, 8, 8)).shape == (batch, 4)
    assert fq.convert(prepared)(torch.randn(5, 3, 8, 8)).shape == (5, 4)


def test_a_layer_in_float_keeps_its_batch_norm_with_it() -> None:
    config = QuantConfig(keep_float=("stem",))
    prepared = fq.prepare_qat(Picture(), example(), config)
    text = fq.format_graph(prepared)
    assert "quantizers.stem_weight" not in text
    assert "@quantizers.stem_bn" not in text
    train(prepared, 2)
    frozen = fq.convert(prepared.eval())
    assert "BatchNorm" not in fq.format_graph(frozen)


def test_a_model_frozen_before_any_batch_names_what_it_lacks() -> None:
    prepared = fq.prepare_qat(Picture(), example())
    with pytest.raises(CalibrationError) as error:
        fq.convert(prepared)
    for text in ("cannot be frozen", "@quantizers.x_quant saw no batch", "train it for a step"):
        assert text in str(error.value)
    assert "@quantizers.stem_weight saw" not in str(error.value)


def test_calibrate_gives_the_first_ranges() -> None:
    prepared = fq.prepare_qat(Picture(), example())
    fq.calibrate(prepared, [torch.randn(4, 3, 8, 8) for _ in range(3)], progress=False)
    assert all(module.problem() is None for _, module in fake_quantizes(prepared))
    assert prepared.training
    fq.convert(prepared)
    train(prepared, 2)
    fq.convert(prepared)


def test_what_cannot_be_trained_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3)).eval()
    x = torch.randn(2, 3)
    program = torch.export.export(model, (x,))
    with pytest.raises(InputError, match="exported program cannot be trained"):
        fq.prepare_qat(program, (x,))  # type: ignore[arg-type]
    functional = fq.Pipeline.default("float")(fq.trace(model, (x,)))
    with pytest.raises(InputError, match="other passes already"):
        fq.prepare_qat(functional, (x,))


class WithAnUnreadPart(nn.Module):
    """A head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.aux = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(x)
        return result


def test_parts_that_evaluation_does_not_read_are_left_out() -> None:
    prepared = fq.prepare_qat(WithAnUnreadPart(), (torch.randn(2, 4),))
    assert [name for name, _ in prepared.named_parameters()] == ["fc.weight", "fc.bias"]
    assert prepared.meta["unread"] == ("aux.weight", "aux.bias")
