"""Equalizing channels: the float model stays, the int8 one gets better, nothing else is touched."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

import fxquant as fq
from fxquant.ir.validity import check_graph
from fxquant.quant.batches import BatchRunner, Call
from fxquant.quant.config import QuantConfig
from fxquant.quant.equalization.channels import tied_channels
from fxquant.quant.equalization.equalize import MARGIN, equalize_channels
from fxquant.quant.equalization.factors import MOST

EXAMPLE = (torch.zeros(1, 3, 12, 12),)


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def uneven(channels: int) -> Tensor:
    """How wide each channel is: two orders of magnitude between the first and the last."""
    return torch.logspace(-1.5, 0.5, channels)


class Net(nn.Module):
    """A stem with uneven channels, something between, and a layer that reads it."""

    def __init__(self, between: Callable[[Tensor], Tensor], channels: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.side = nn.Conv2d(3, 16, 1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.gate = nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(channels, 6, 1)
        self.between = between
        with torch.no_grad():
            for layer in (self.stem, self.side):
                layer.weight.mul_(uneven(16).view(-1, 1, 1, 1))
                assert layer.bias is not None
                layer.bias.mul_(uneven(16))
            self.head.weight.div_(uneven(16).repeat(channels // 16).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        if self.between is residual:
            y = y + self.side(x)
        elif self.between is concatenated:
            y = torch.cat([F.relu(y), self.side(x)], 1)
        elif self.between is depthwise:
            y = F.relu(self.deep(F.relu(y)))
        elif self.between is gated:
            y = F.relu(y)
            y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        else:
            y = self.between(y)
        result: Tensor = self.head(y)
        return result


def residual(value: Tensor) -> Tensor:
    return value


def concatenated(value: Tensor) -> Tensor:
    return value


def depthwise(value: Tensor) -> Tensor:
    return value


def gated(value: Tensor) -> Tensor:
    return value


def linear_between(value: Tensor) -> Tensor:
    return value


BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": linear_between,
    "relu": F.relu,
    "leaky": F.leaky_relu,
    "pool": lambda value: F.max_pool2d(F.relu(value), 2),
    "residual": residual,
    "concatenated": concatenated,
    "depthwise": depthwise,
    "gated": gated,
    "whole": lambda value: F.adaptive_avg_pool2d(F.relu(value), 1),
}


def net(name: str) -> Net:
    return Net(BETWEEN[name], 32 if name == "concatenated" else 16).eval()


def equalized(model: nn.Module) -> tuple[GraphModule, int]:
    prepared = fq.prepare(model, EXAMPLE)
    with torch.no_grad():
        count = equalize_channels(prepared, calls(prepared))
    prepared.recompile()
    check_graph(prepared)
    return prepared, count


def calls(prepared: GraphModule) -> list[Call]:
    runner = BatchRunner(prepared)
    return [call for batch in images().split(4) for call in runner.calls(batch, 0)]


@torch.no_grad()
def run(program: nn.Module, batch: Tensor) -> Tensor:
    return torch.cat([program(x) for x in batch.split(1)])


def noise(model: nn.Module, config: QuantConfig) -> float:
    prepared = fq.prepare(model, EXAMPLE, config)
    fq.calibrate(prepared, images(16).split(4), progress=False)
    wanted, found = run(model, images(16)), run(prepared, images(16))
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", BETWEEN)
def test_the_float_model_stays(name: str) -> None:
    model = net(name)
    prepared, count = equalized(model)
    assert count >= 8
    batch = 10 * images(3)
    wanted = run(model, batch)
    assert (run(prepared, batch) - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", BETWEEN)
def test_the_quantized_model_gets_better(name: str) -> None:
    off = QuantConfig(equalize=False, correct_bias=False)
    on = QuantConfig(correct_bias=False)
    assert noise(net(name), on) < 0.7 * noise(net(name), off)


STOPS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "constant added": lambda value: F.relu(value) + 1,
    "bounded away from 0": lambda value: value.clamp(0.5, 2.0),
    "square": lambda value: value * value,
    "channels mixed": lambda value: (
        value.reshape(1, 8, 2, 12, 12).transpose(1, 2).reshape_as(value)
    ),
    "unlike things added": lambda value: value + value.flip(1),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_lets_no_factor_pass_stops_it(name: str) -> None:
    model = Net(STOPS[name]).eval()
    prepared, count = equalized(model)
    assert count == 0
    assert torch.equal(run(prepared, images(2)), run(model, images(2)))


class Tied(nn.Module):
    """One layer at two places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.conv.weight.mul_(uneven(3).view(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.relu(self.conv(x)))
        return result


def test_shared_weights_keep_their_values() -> None:
    assert equalized(Tied())[1] == 0


def test_relu6_cuts_no_more_than_before() -> None:
    model = Net(F.relu6).eval()
    prepared, count = equalized(model)
    assert count >= 8
    wanted = run(model, images())
    assert (run(prepared, images()) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    with torch.no_grad():
        before, after = (conv(images()).amax((0, 2, 3)) for conv in (model.stem, stem_of(prepared)))
    widened = after > 1.01 * before
    assert widened.any() and (after[widened] <= 6 / MARGIN * 1.001).all()
    assert (after >= 0.999 * before).all(), "a channel that is narrowed would be cut less"


def stem_of(prepared: GraphModule) -> nn.Module:
    stem = prepared.stem
    assert isinstance(stem, nn.Module)
    weight, bias = stem.weight, stem.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    conv = nn.Conv2d(3, 16, 3, padding=1)
    conv.weight, conv.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return conv


def test_dead_channels_get_no_endless_factors() -> None:
    model = net("relu")
    with torch.no_grad():
        model.stem.weight[3:5] = 0
        assert model.stem.bias is not None
        model.stem.bias[3] = 0
        model.stem.bias[4] = -1
    prepared, _ = equalized(model)
    assert torch.isfinite(run(prepared, images(2))).all()
    assert (stem_of(prepared).bias.abs() <= 1.001 * MOST * model.stem.bias.abs()).all()  # type: ignore[operator]


def test_the_user_s_model_is_not_touched() -> None:
    model = net("residual")
    before = copy.deepcopy(model.state_dict())
    equalized(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_with_one_scale_for_all_rows_are_left() -> None:
    prepared = fq.prepare(net("relu"), EXAMPLE, QuantConfig(per_channel=False))
    assert equalize_channels(prepared, calls(prepared)) == 0


def test_values_of_16_bits_are_left() -> None:
    """Their steps are fine for channels of any width; the weights of the reader would suffer."""
    config = QuantConfig("int16x8", correct_bias=False)
    prepared = fq.prepare(Net(F.relu).eval(), EXAMPLE, config)
    assert equalize_channels(prepared, calls(prepared)) == 0


def test_a_concatenation_joins_channel_by_channel() -> None:
    prepared = fq.prepare(net("concatenated"), EXAMPLE)
    tied = tied_channels(prepared)
    ends = {node.name: tied.of(channels).tolist() for node, channels in tied.ends.items()}
    begins = {node.name: tied.of(channels).tolist() for node, channels in tied.begins.items()}
    assert ends["head"] == begins["stem"] + begins["side"]
