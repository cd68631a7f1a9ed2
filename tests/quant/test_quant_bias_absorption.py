"""Absorbing high biases: the float model stays on the samples, ranges shrink, int8 gets better."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

import fxquant as fq
from benchmarks.execution import FileProgram, run_all, sqnr
from fxquant.ir.validity import check_graph
from fxquant.quant.batches import BatchRunner
from fxquant.quant.bias_absorption import absorb_high_bias, absorbing_pairs
from fxquant.quant.config import QuantConfig
from fxquant.quant.fake_quantize import FakeQuantize

EXAMPLE = (torch.zeros(1, 3, 6, 6),)
OFF = QuantConfig(equalize=False, correct_bias=False)
ON = QuantConfig(equalize=False, absorb_bias=True, correct_bias=False)


def images(count: int = 8, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 6, 6, generator=generator) for _ in range(count)]


class Net(nn.Module):
    """Two layers with a ReLU between; most channels of the first lie far above 0."""

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        between: Callable[[Tensor], Tensor] = F.relu,
        *,
        reads: str = "once",
    ) -> None:
        super().__init__()
        self.first, self.second, self.between = first, second, between
        self.reads = reads
        if isinstance(first.bias, Tensor):
            nn.init.constant_(first.bias, 8.0)
            nn.init.zeros_(first.bias[:2])
        elif isinstance(first.weight, Tensor):
            nn.init.uniform_(first.weight, 2.0, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        value = self.between(self.first(x + 1 if self.reads == "plus" else x))
        y: Tensor = self.second(value)
        return y + value.mean() if self.reads == "twice" else y


def conv(inputs: int, outputs: int, kernel: int = 1, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]


NETS: dict[str, Callable[[], Net]] = {
    "pointwise": lambda: Net(conv(3, 8), conv(8, 4)),
    "no biases": lambda: Net(conv(3, 8, bias=False), conv(8, 4, bias=False), reads="plus"),
    "window": lambda: Net(conv(3, 8, 3, padding=1), conv(8, 4, 3, stride=2)),
    "depthwise": lambda: Net(conv(3, 8), conv(8, 8, 3, groups=8)),
    "groups": lambda: Net(conv(3, 8), conv(8, 6, 2, groups=2, dilation=2)),
    "from transposed": lambda: Net(nn.ConvTranspose2d(3, 8, 2, stride=2), conv(8, 4)),
    "linear": lambda: Net(nn.Linear(6, 8), nn.Linear(8, 4)),
    "clamp": lambda: Net(conv(3, 8), conv(8, 4), lambda value: value.clamp(min=0)),
}


def made(name: str) -> Net:
    torch.manual_seed(0)
    return NETS[name]().eval()


def absorbed(model: nn.Module, config: QuantConfig = OFF) -> tuple[GraphModule, int]:
    prepared = fq.prepare(model, EXAMPLE, config)
    count = absorb(prepared)
    check_graph(prepared)
    return prepared, count


def absorb(prepared: GraphModule) -> int:
    runner = BatchRunner(prepared)
    with torch.no_grad():
        count = absorb_high_bias(prepared, (c for x in images() for c in runner.calls(x, 0)))
    prepared.recompile()
    return count


def calibrated(model: nn.Module, config: QuantConfig) -> GraphModule:
    return fq.calibrate(fq.prepare(model, EXAMPLE, config), images(), progress=False)


def range_between(prepared: GraphModule) -> float:
    """The largest value of the grid that the ReLU's result is stored on."""
    ((first, _),) = absorbing_pairs(prepared)
    while first.op != "call_module":
        (first,) = first.users
    module = prepared.get_submodule(str(first.target))
    assert isinstance(module, FakeQuantize)
    return float(module.scale * (module.spec.high - module.zero_point))


@pytest.mark.parametrize("name", NETS)
def test_the_float_model_stays_on_the_samples(name: str) -> None:
    model = made(name)
    before = copy.deepcopy(model.state_dict())
    prepared, count = absorbed(model)
    assert 4 <= count <= 8
    wanted = run_all(model, images())
    assert (run_all(prepared, images()) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", NETS)
def test_ranges_shrink_and_int8_gets_better(name: str) -> None:
    model = made(name)
    plain, better = calibrated(model, OFF), calibrated(model, ON)
    assert range_between(better) < 0.6 * range_between(plain)
    wanted = run_all(model, images())
    with FileProgram(fq.lower(fq.convert(plain))) as program:
        before = sqnr(wanted, run_all(program, images()))
    lowered = fq.lower(fq.convert(better))
    with FileProgram(lowered) as program:
        found = run_all(program, images())
    assert sqnr(wanted, found) > before + 2, "the grid of the output stays"
    step = (found.max() - found.min()) / 255
    assert (found - run_all(lowered.graph_module, images())).abs().max() < 1.5 * step


def test_what_falls_below_the_samples_counts_as_their_least() -> None:
    model = made("pointwise")
    prepared, _ = absorbed(model)
    low = torch.full((1, 3, 6, 6), -20.0)
    with torch.no_grad():
        least = torch.cat([model.first(x) for x in images()]).amin((0, 2, 3), keepdim=True)
        wanted = model.second(torch.maximum(model.first(low), least.clamp(min=0)))
        assert torch.allclose(prepared(low), wanted, atol=1e-4)


REFUSED: dict[str, Callable[[], Net]] = {
    "padding": lambda: Net(conv(3, 8), conv(8, 4, 3, padding=1)),
    "padding of points": lambda: Net(conv(3, 8), conv(8, 4, padding=1)),
    "relu6": lambda: Net(conv(3, 8), conv(8, 4), F.relu6),
    "leaky": lambda: Net(conv(3, 8), conv(8, 4), F.leaky_relu),
    "nothing between": lambda: Net(conv(3, 8), conv(8, 4), lambda value: value),
    "pad between": lambda: Net(conv(3, 8), conv(8, 4), lambda value: F.pad(value.relu(), [1] * 4)),
    "two readers": lambda: Net(conv(3, 8), conv(8, 4), reads="twice"),
    "other axis": lambda: Net(conv(3, 8), nn.Linear(6, 4)),
    "to transposed": lambda: Net(conv(3, 8), nn.ConvTranspose2d(8, 4, 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_it_would_not_be_exact_nothing_moves(name: str) -> None:
    torch.manual_seed(0)
    model = REFUSED[name]().eval()
    prepared, count = absorbed(model)
    assert count == 0 and not list(absorbing_pairs(prepared))
    assert torch.equal(run_all(prepared, images()), run_all(model, images()))


@pytest.mark.parametrize("config", [QuantConfig("int16x8"), QuantConfig(keep_float=("second",))])
def test_what_an_8_bit_grid_does_not_store_is_left(config: QuantConfig) -> None:
    assert absorbed(made("pointwise"), config)[1] == 0


def test_biases_below_0_stay() -> None:
    model = made("pointwise")
    nn.init.constant_(model.first.bias, -8.0)  # type: ignore[arg-type]
    prepared, count = absorbed(model)
    assert list(absorbing_pairs(prepared)) and count == 0


def test_twice_on_the_same_samples_is_once() -> None:
    model = made("pointwise")
    prepared, _ = absorbed(model)
    once = run_all(prepared, images())
    absorb(prepared)
    assert torch.allclose(run_all(prepared, images()), once, atol=1e-5)


def test_a_shared_layer_gets_two_biases() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = conv(3, 3)
            nn.init.constant_(self.conv.bias, 4.0)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(F.relu(self.conv(x)))
            return result

    model = Shared().eval()
    prepared, count = absorbed(model)
    assert count == 3
    wanted = run_all(model, images())
    assert torch.allclose(run_all(prepared, images()), wanted, atol=1e-5)


def test_calibrating_again_absorbs_nothing_more() -> None:
    """Ranges are known by then; biases are corrected anew from the absorbed ones."""
    config = QuantConfig(absorb_bias=True)
    prepared = calibrated(made("pointwise"), config)
    once = run_all(prepared, images())
    fq.calibrate(prepared, images(), progress=False)
    check_graph(prepared)
    assert torch.allclose(run_all(prepared, images()), once, atol=1e-4)


def test_it_is_off_unless_asked_for_and_in_training() -> None:
    model = made("pointwise")
    assert range_between(calibrated(model, OFF)) > 8
    trained = fq.prepare_qat(model, EXAMPLE, ON)
    fq.calibrate(trained, images(), progress=False)
    assert {name for name, _ in trained.named_parameters()} == {
        name for name, _ in model.named_parameters()
    }


def test_the_option_is_kept_in_yaml() -> None:
    assert QuantConfig.from_yaml(ON.to_yaml()) == ON and "absorb_bias: true" in ON.to_yaml()
