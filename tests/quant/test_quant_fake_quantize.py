"""FakeQuantize: its modes, its grids, its gradient, its state."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from fxquant.quant.arithmetic import dequantize, quantize
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.observers import HistogramObserver, make_observer
from fxquant.quant.spec import INT8_WEIGHTS, QuantSpec


def calibrated(spec: QuantSpec, value: torch.Tensor, channels: int = 1) -> FakeQuantize:
    module = FakeQuantize(spec, channels)
    module.switch(observing=True, quantizing=False)
    assert module(value) is value
    module.take_parameters()
    module.switch(observing=False, quantizing=True)
    return module


def test_off_is_the_identity() -> None:
    value = torch.randn(5)
    module = FakeQuantize(QuantSpec())
    assert module(value) is value
    assert module.problem() == "saw nothing"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "int16"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_quantizing_is_the_arithmetic(dtype: str, symmetric: bool) -> None:
    torch.manual_seed(0)
    value = torch.randn(200)
    spec = QuantSpec(dtype, symmetric=symmetric)
    module = calibrated(spec, value)
    grid = (module.scale, module.zero_point)
    integers = quantize(value, module.parameters_now(), spec.low, spec.high)
    expected = dequantize(integers, module.parameters_now())
    # the fused kernel multiplies by the reciprocal, so a tie may fall to the other side
    assert (module(value) - expected).abs().max() <= grid[0] * 1.001
    assert ((module(value) - expected).abs() > grid[0] / 2).sum() <= 1


def test_per_channel() -> None:
    weight = torch.randn(4, 3, 2, 2) * torch.tensor([0.0, 1.0, 10.0, 0.01]).reshape(4, 1, 1, 1)
    module = calibrated(INT8_WEIGHTS.along(0), weight, channels=4)
    assert module.scale.shape == (4,) and (module.scale > 0).all()
    error = (module(weight) - weight).abs().amax((1, 2, 3))
    assert (error <= module.scale / 2 * 1.001).all()


def test_the_gradient_passes_straight_through_inside_the_range() -> None:
    module = calibrated(QuantSpec(), torch.tensor([-1.0, 1.0]))
    value = torch.tensor([0.3, 5.0], requires_grad=True)
    module(value).sum().backward()
    assert value.grad is not None and value.grad.tolist() == [1.0, 0.0]


def test_fixed_parameters_are_never_observed() -> None:
    module = FakeQuantize(QuantSpec(fixed=(1 / 256, -128)))
    module.switch(observing=True, quantizing=True)
    assert module(torch.tensor([7.0])).item() == 255 / 256
    assert not module.observer.seen and module.problem() is None


def test_a_constant_is_measured_afresh() -> None:
    module = FakeQuantize(QuantSpec(), constant=True)
    module.switch(observing=True, quantizing=True)
    module(torch.tensor([0.0, 100.0]))
    module(torch.tensor([0.0, 1.0]))
    assert float(module.scale) == pytest.approx(1 / 255)


def test_observing_and_quantizing_at_once_follows_the_data() -> None:
    module = FakeQuantize(QuantSpec(observer="minmax"))
    module.switch(observing=True, quantizing=True)
    module(torch.tensor([0.0, 1.0]))
    module(torch.tensor([0.0, 4.0]))
    assert float(module.scale) == pytest.approx(4 / 255)


@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_copies_quantize_alike(how: str) -> None:
    value = torch.randn(100)
    module = calibrated(QuantSpec(observer="mse"), value)
    other = FakeQuantize(QuantSpec(observer="mse"))
    if how == "state_dict":
        other.load_state_dict(module.state_dict())
    elif how == "deepcopy":
        other = copy.deepcopy(module)
    else:
        other = pickle.loads(pickle.dumps(module))
    assert torch.equal(other(value), module(value))
    assert other.quantizing and not other.observing and other.problem() is None


def test_it_prints_its_mode() -> None:
    module = FakeQuantize(QuantSpec(observer="mse"))
    assert module.extra_repr() == "int8 asymmetric mse, off"
    module.switch(observing=True, quantizing=True)
    assert module.extra_repr() == "int8 asymmetric mse, observing and quantizing"


@pytest.mark.parametrize("dtype", ["int4", "int8", "uint8", "int16"])
@pytest.mark.parametrize("axis", [None, 1])
def test_without_gradients_the_bits_are_those_of_the_kernels(dtype: str, axis: int | None) -> None:
    torch.manual_seed(0)
    spec = QuantSpec(dtype, symmetric=axis is not None, axis=axis)
    quantizer = FakeQuantize(spec, 5)
    value = 3 * torch.randn(4, 5, 6)
    quantizer.observer(value / 2)  # some values are cut off
    quantizer.take_parameters()
    quantizer.switch(observing=False, quantizing=True)
    with torch.no_grad():
        found = quantizer(value)
    trained = quantizer(value.clone().requires_grad_())
    assert trained.requires_grad
    assert torch.equal(found, trained.detach())


def test_extremes_are_seen_where_values_are_sampled() -> None:
    """Histograms count some of the values, the range that clips nothing holds all."""
    observer = make_observer(QuantSpec("int8", observer="mse"))
    value = torch.zeros(1, 1 << 16)
    value[0, 12345] = 7.0
    for _ in range(3):
        observer(value)
    assert float(observer.high) == 7.0
    assert isinstance(observer, HistogramObserver)
    assert float(observer.histogram.reach) >= 7.0
    total = int(observer.histogram.counts.sum())
    assert total == pytest.approx(3 * value.numel(), rel=1e-3)


def test_what_waits_to_be_counted_is_saved_and_forgotten() -> None:
    observer = make_observer(QuantSpec("int8", observer="mse"))
    observer(torch.ones(10))
    other = make_observer(QuantSpec("int8", observer="mse"))
    other.load_state_dict(observer.state_dict())
    assert isinstance(other, HistogramObserver)
    assert int(other.histogram.counts.sum()) == 10
    observer(torch.ones(10))
    observer.reset()
    assert isinstance(observer, HistogramObserver)
    assert int(observer.histogram.counts.sum()) == 0
